"""Seccomp: system calls that no exercise needs fail with PermissionError.

The filter complements Landlock, which knows neither sockets other than TCP nor processes, and does not guard the
mode, owner and times of a file. It is built by libseccomp, which knows the numbers of the calls by architecture.
"""

import ctypes
import errno
import os

_ALLOW = 0x7FFF0000
_NOT_EQUAL, _EQUAL, _MASKED_EQUAL = 1, 4, 7
_CLONE_THREAD = 0x10000
_SYNCHRONISE = 4  # the filter attribute that extends it to all threads

_DENIED = """
    socket socketpair bind connect listen accept accept4
    execve execveat fork vfork
    ptrace process_vm_readv process_vm_writev process_madvise process_mrelease kcmp
    pidfd_open pidfd_getfd pidfd_send_signal tkill
    memfd_create memfd_secret shmget shmat shmctl shmdt semget semctl semop semtimedop msgget msgctl msgsnd msgrcv
    mq_open mq_unlink
    mount umount umount2 mount_setattr move_mount open_tree fsopen fsmount fsconfig fspick pivot_root chroot
    unshare setns quotactl quotactl_fd swapon swapoff name_to_handle_at open_by_handle_at
    fanotify_init fanotify_mark inotify_init inotify_init1
    chmod fchmod fchmodat fchmodat2 chown lchown fchown fchownat utime utimes utimensat futimesat truncate
    setxattr lsetxattr fsetxattr setxattrat removexattr lremovexattr fremovexattr removexattrat
    open_tree_attr file_setattr sync syncfs
    bpf perf_event_open userfaultfd io_uring_setup io_uring_enter io_uring_register
    keyctl add_key request_key personality modify_ldt iopl ioperm vhangup syslog acct reboot
    init_module finit_module delete_module kexec_load kexec_file_load lookup_dcookie
    settimeofday clock_settime clock_adjtime adjtimex sethostname setdomainname
    move_pages migrate_pages sched_setscheduler sched_setparam sched_setattr ioprio_set setpgid
"""

# Calls younger than the libraries in use; such numbers are the same on every architecture that torch runs on.
_YOUNG = {"fchmodat2": 452, "setxattrat": 463, "removexattrat": 466, "open_tree_attr": 467, "file_setattr": 469}


class _Comparison(ctypes.Structure):
    _fields_ = (("argument", ctypes.c_uint), ("operator", ctypes.c_int), ("a", ctypes.c_uint64), ("b", ctypes.c_uint64))


def load() -> ctypes.CDLL | None:
    """Load the library, or return None where it is missing."""
    try:
        library = ctypes.CDLL("libseccomp.so.2")
    except OSError:
        return None
    library.seccomp_init.restype = ctypes.c_void_p
    library.seccomp_init.argtypes = [ctypes.c_uint32]
    library.seccomp_attr_set.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_uint32]
    library.seccomp_rule_add_array.argtypes = [
        ctypes.c_void_p, ctypes.c_uint32, ctypes.c_int, ctypes.c_uint, ctypes.POINTER(_Comparison),
    ]  # fmt: skip
    library.seccomp_load.argtypes = [ctypes.c_void_p]
    library.seccomp_release.argtypes = [ctypes.c_void_p]
    return library


class _Filter:
    """A filter that lets everything through but what `deny` names."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self._library = library
        self._handle = library.seccomp_init(_ALLOW)
        if not self._handle:
            raise OSError(errno.ENOMEM, "seccomp_init failed")

    def deny(self, name: str, when: tuple[int, int, int, int] | None = None, code: int = errno.EPERM) -> None:
        """Make a call fail, always or where an argument compares so: (argument, operator, a, b)."""
        number = self._library.seccomp_syscall_resolve_name(name.encode())
        if number == -1:
            number = _YOUNG.get(name, -1)
        if number == -1:
            return
        comparison = (_Comparison * 1)(*([_Comparison(*when)] if when else []))
        outcome = self._library.seccomp_rule_add_array(
            self._handle, 0x00050000 | code, number, 1 if when else 0, comparison
        )
        if outcome != 0:
            raise OSError(-outcome, f"seccomp refuses a rule for {name}: {os.strerror(-outcome)}")

    def load(self) -> None:
        """Put the filter in force for good."""
        self._library.seccomp_attr_set(self._handle, _SYNCHRONISE, 1)
        outcome = self._library.seccomp_load(self._handle)
        self._library.seccomp_release(self._handle)
        if outcome != 0:
            raise OSError(-outcome, f"seccomp_load: {os.strerror(-outcome)}")


def restrict(library: ctypes.CDLL) -> None:
    """Confine the calling process for good; its process id must be final."""
    rules = _Filter(library)
    for name in _DENIED.split():
        rules.deny(name)
    rules.deny("clone", (0, _MASKED_EQUAL, _CLONE_THREAD, 0))  # threads pass, processes do not
    rules.deny("clone3", code=errno.ENOSYS)  # its flags cannot be seen from here; the C library falls back to clone
    for name in ("kill", "tgkill", "rt_sigqueueinfo", "rt_tgsigqueueinfo"):
        rules.deny(name, (0, _NOT_EQUAL, os.getpid(), 0))
    for name in ("prlimit64", "sched_setaffinity", "setpriority"):
        rules.deny(name, (0, _NOT_EQUAL, 0, 0))
    rules.deny("setpriority", (1, _NOT_EQUAL, 0, 0))
    rules.deny("prctl", (0, _EQUAL, 1, 0))  # the order to die with the server stands
    rules.load()
