"""Pooling and LeNet: smaller feature maps, and the first convolutional network."""

TITLE = "Pooling and LeNet"
EXERCISES = ("pool2d", "adaptive_avg_pool2d", "lenet", "train_convnet", "evaluate_convnet")
