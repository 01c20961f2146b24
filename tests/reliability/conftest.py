"""What the tests of faults share: processes to be killed, in `children`, and what they are compared with."""

from children import child  # noqa: F401
from straight import config, uninterrupted  # noqa: F401
from test_brain_tumor_mri_builder import web  # noqa: F401
from test_launch import data  # noqa: F401
