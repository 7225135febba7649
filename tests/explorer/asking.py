"""Questions to the fake study that several tests ask."""

from explorer.request import Request

REQUEST = Request(
    "fake", "sub-01", "test-04", "linear", "painter", scales=(0.0, 1.0, 4.0), steps=4
)


def done(frames):
    return [frame for frame in frames if frame.done]


def every_trial(workbench, subject="sub-01", mapper="linear"):
    stimuli = workbench.catalogue.gallery("fake", subject).index
    return [Request("fake", subject, stimulus, mapper, "painter") for stimulus in stimuli]
