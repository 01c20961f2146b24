"""What the tests of faults share: processes to be killed, in `children`, and what they are compared with."""

from children import child  # noqa: F401
from straight import config, uninterrupted  # noqa: F401
