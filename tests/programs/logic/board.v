// No board: the framework is empty.
