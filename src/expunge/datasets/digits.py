"""digits: 1,797 real 8x8 images of handwritten digits; needs no download. The default.

Alpaydin and Kaynak, "Optical Recognition of Handwritten Digits", UCI 1998, https://doi.org/10.24432/C50P49, as
scikit-learn bundles it. One row in five, drawn class by class, is for testing.
"""

import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from expunge.data import Data
from expunge.rows import TensorRows
from expunge.settings import settings

MEAN, STD = 0.3053, 0.3760


@settings
class Digits:
    """Real digits, 8x8 pixels, one channel, normalised by the mean and deviation of all pixels."""

    def load(self) -> Data:
        """Return the data: 1,437 training and 360 test rows."""
        bunch = load_digits()
        pixels = (bunch.images / 16 - MEAN) / STD
        train, test, train_labels, test_labels = train_test_split(
            pixels, bunch.target, test_size=0.2, random_state=0, stratify=bunch.target
        )

        def rows(images: object, labels: object) -> TensorRows:
            inputs = torch.as_tensor(images, dtype=torch.float32).unsqueeze(1)
            return TensorRows(inputs, torch.as_tensor(labels, dtype=torch.int64))

        return Data(
            train=rows(train, train_labels),
            test=rows(test, test_labels),
            label_names=tuple(str(digit) for digit in range(10)),
            input_size=(1, 8, 8),
            mean=(MEAN,),
            std=(STD,),
        )
