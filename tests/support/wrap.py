"""Where numbers of 7, 8, 9, 15 and 16 bits wrap around: every mechanism that counts is started at each of these."""

WRAP_STARTS = (0, 1, 127, 128, 129, 511, 512, 513, 32767, 32768, 32769, 65534, 65535)
