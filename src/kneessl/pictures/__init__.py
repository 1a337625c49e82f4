"""Small colour pictures in place of exams: the long-tailed CIFAR-10 of the thesis's chapter 3."""
