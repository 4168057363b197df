"""What holds for every test."""

import os

# The thread policy of a training follows the machine's load, and another count of threads adds up
# in another order: two trainings of one seed would differ in the last bits whenever something else
# starts or ends beside the tests. Set before torch is imported, and inherited by what tests start.
os.environ.setdefault("OMP_NUM_THREADS", "1")
