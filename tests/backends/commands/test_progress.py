"""What a command tells while it works: a bar on a terminal, plain lines elsewhere."""

import io
import re

import pytest
from rich.console import Console

from backends.commands.progress import Teller, rate, telling
from backends.training.counted import Counted, count, prefixed


class Clock:
    """Seconds that a test turns on."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def on_terminal(clock):
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=True, width=100, color_system=None)
    return Teller(console, clock), stream


def elsewhere(clock):
    stream = io.StringIO()
    return Teller(Console(file=stream, force_terminal=False, width=20), clock), stream


def lines(stream):
    """Return plain lines without their time of day, which each has."""
    found = stream.getvalue().splitlines()
    assert all(re.match(r"\d\d:\d\d:\d\d  ", line) for line in found)
    return [line[10:] for line in found]


def draw(teller, clock, until, total=100):
    for done in range(0, until + 1, 5):
        clock.now = done / 2
        teller(count("out", done, total, "pictures", "drawn", note=f"loss {done}"))


def test_a_terminal_shows_a_bar_with_rate_and_time_left():
    clock = Clock()
    teller, stream = on_terminal(clock)
    teller("3 stimuli to embed")
    draw(teller, clock, 40)
    teller._bars.refresh()
    text = stream.getvalue()
    assert "3 stimuli to embed" in text
    assert "40/100 pictures" in text and "━" in text
    assert "2 pictures/s, 30 s left, loss 40" in text  # 40 in 20 s, 60 more
    assert "40/100 pictures drawn" not in text  # the bar says it, no line does
    clock.now = 50.0
    teller(count("out", 100, 100, "pictures", "drawn"))
    assert re.search(r"\d\d:\d\d:\d\d  out: 100/100 pictures drawn", stream.getvalue())
    assert not teller._bars.tasks  # its bar is gone
    teller.close()
    assert "\x1b[?25h" in stream.getvalue()  # the cursor is shown again


def test_a_bar_of_work_that_goes_on_counts_from_where_it_stood():
    clock = Clock()
    teller, stream = on_terminal(clock)
    teller(count("toy", 500, 1000, "steps"))
    clock.now = 10.0
    teller(count("toy", 600, 1000, "steps"))
    teller._bars.refresh()
    assert "10 steps/s, 40 s left" in stream.getvalue()  # not 60 a second
    teller.close()


def test_work_that_begins_again_is_timed_anew():
    clock = Clock()
    teller, stream = elsewhere(clock)
    teller(count("toy", 90, 100, "steps"))  # ended by an error at step 90
    clock.now = 1000.0
    teller(count("toy", 0, 100, "steps"))
    clock.now = 1010.0
    teller(count("toy", 20, 100, "steps"))
    assert lines(stream)[-1] == "toy: 20/100 steps, 2 steps/s, 40 s left"


def test_elsewhere_lines_are_plain_and_few():
    clock = Clock()
    teller, stream = elsewhere(clock)
    teller("[bold] is no markup, and a long line is not wrapped")
    draw(teller, clock, 100)
    assert "\x1b" not in stream.getvalue() and "━" not in stream.getvalue()
    assert lines(stream) == [
        "[bold] is no markup, and a long line is not wrapped",
        "out: 0/100 pictures drawn, loss 0",
        "out: 20/100 pictures drawn, loss 20, 2 pictures/s, 40 s left",
        "out: 40/100 pictures drawn, loss 40, 2 pictures/s, 30 s left",
        "out: 60/100 pictures drawn, loss 60, 2 pictures/s, 20 s left",
        "out: 80/100 pictures drawn, loss 80, 2 pictures/s, 10 s left",
        "out: 100/100 pictures drawn, loss 100",
    ]


def test_sentences_go_to_the_error_stream_and_results_to_the_output(capsys):
    with telling() as say:
        say(count("out", 1, 2, "pictures"))
        say.result("the table")
        say(count("out", 2, 2, "pictures"))
    out, err = capsys.readouterr()
    assert out == "the table\n"
    assert "out: 1/2 pictures\n" in err and "out: 2/2 pictures\n" in err


def test_bars_go_before_a_result_is_printed_and_when_a_command_fails(capsys):
    teller, stream = on_terminal(Clock())
    teller(count("out", 1, 2, "pictures"))
    teller.result("the table")
    assert teller._bars is None and "\x1b[?25h" in stream.getvalue()
    assert capsys.readouterr().out == "the table\n"
    with pytest.raises(ValueError, match="broken"), telling() as say:
        say._console = Console(file=stream, force_terminal=True)
        say(count("out", 1, 2, "pictures"))
        raise ValueError("broken")
    assert say._bars is None


def test_a_sentence_that_counts_is_a_sentence():
    sentence = count("out", 3, 12, "pictures", "drawn", note="loss 1")
    assert sentence == "out: 3/12 pictures drawn, loss 1" and isinstance(sentence, str)
    assert (sentence.work, sentence.done, sentence.total, sentence.last) == ("out", 3, 12, False)
    told = []
    prefixed(told.append, "subj01")(sentence)
    prefixed(told.append, "subj01")("plain")
    assert told == ["subj01: out: 3/12 pictures drawn, loss 1", "subj01: plain"]
    assert (told[0].work, told[0].done, told[0].note) == ("subj01: out", 3, "loss 1")
    assert prefixed(None, "subj01") is None
    early = Counted("stopped", work="toy", done=3, total=12, unit="steps", last=True)
    assert early.last and count("toy", 12, 12, "steps").last


@pytest.mark.parametrize(
    ("per_second", "said"),
    [
        (1234.5, "1,234 steps/s"),
        (3.21, "3.2 steps/s"),
        (0.5, "30 steps/min"),
        (0.01, "36 steps/h"),
    ],
)
def test_rates_are_said_in_units_that_people_count_in(per_second, said):
    assert rate(per_second, "steps") == said
