"""``python -m pushsvc.settings > docs/settings.md`` writes the documentation."""

import sys

from pushsvc.settings.document import document

sys.stdout.write(document())
