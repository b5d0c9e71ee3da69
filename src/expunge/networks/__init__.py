"""Networks of our own, registered with timm so that ``timm.create_model`` builds them like all of timm's."""

from expunge.networks import allcnn, mlp, resnet20, small_cnn

__all__ = ["allcnn", "mlp", "resnet20", "small_cnn"]
