"""`download` against a server that cuts, stalls, lies, redirects and refuses; never the real network."""

import socket
from pathlib import Path

import pytest

from nstgpu.weights.errors import DownloadError
from nstgpu.weights.official import download as module
from nstgpu.weights.official.catalogue import OfficialFile
from nstgpu.weights.official.download import PAUSES, download


class Fetching:
    """One target, and what the callbacks heard."""

    def __init__(self, folder: Path) -> None:
        self.target = folder / "vgg19_notop.h5"
        self.part = folder / "vgg19_notop.h5.part"
        self.progress: list[int] = []
        self.reasons: list[str] = []
        self.slept: list[float] = []

    def __call__(self, official, timeout=5.0):
        download(
            official,
            self.target,
            on_progress=self.progress.append,
            on_retry=lambda reason, _: self.reasons.append(reason),
            timeout=timeout,
            sleep=self.slept.append,
        )

    def fails(self, official, timeout=5.0) -> str:
        with pytest.raises(DownloadError) as caught:
            self(official, timeout)
        message = str(caught.value)
        assert "\n" not in message
        assert f"by hand: download {official.url} and save it as {self.target}" in message
        assert not self.target.exists()
        return message


@pytest.fixture
def fetching(tmp_path):
    folder = tmp_path / "store"
    folder.mkdir()
    return Fetching(folder)


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch):
    monkeypatch.setattr(module, "PIECE", 1000)


def status(code, **headers):
    def answer(request, _):
        request.send_response(code)
        for name, text in headers.items():
            request.send_header(name, text)
        request.end_headers()

    return answer


def test_a_good_server(web, fetching):
    fetching(web.official)
    assert fetching.target.read_bytes() == web.content
    assert not fetching.part.exists()
    assert (fetching.progress[0], fetching.progress[-1]) == (0, len(web.content))
    assert fetching.progress == sorted(fetching.progress)
    assert (web.ranges, fetching.reasons, fetching.slept) == ([None], [], [])


def test_a_cut_is_gone_on_from(web, fetching):
    web.answers = [lambda request, start: web.send(request, start, 5000)]
    fetching(web.official)
    assert fetching.target.read_bytes() == web.content
    assert web.ranges == [None, "bytes=5000-"]
    assert fetching.reasons == [f"the connection ended after 5,000 of {len(web.content):,} bytes"]
    assert fetching.slept == [PAUSES[0]]


def test_what_an_earlier_run_left_is_gone_on_from(web, fetching):
    fetching.part.write_bytes(web.content[:7000])
    fetching(web.official)
    assert fetching.target.read_bytes() == web.content
    assert web.ranges == ["bytes=7000-"]
    assert fetching.progress[0] == 7000


def test_a_complete_part_needs_no_server(web, fetching):
    fetching.part.write_bytes(web.content)
    fetching(web.official)
    assert fetching.target.read_bytes() == web.content
    assert web.ranges == []


def test_a_part_that_is_too_large_is_dropped(web, fetching):
    fetching.part.write_bytes(web.content + b"more")
    fetching(web.official)
    assert fetching.target.read_bytes() == web.content
    assert web.ranges == [None]


@pytest.mark.parametrize("left", [0.5, 1.0])
def test_a_part_of_another_file_is_found_out_and_fetched_anew(web, fetching, left):
    fetching.part.write_bytes(b"x" * int(len(web.content) * left))
    fetching(web.official)
    assert fetching.target.read_bytes() == web.content
    assert web.ranges[-1] is None
    assert fetching.reasons == ["what an earlier attempt had left was damaged"]


def test_a_server_without_ranges_starts_over(web, fetching):
    fetching.part.write_bytes(b"y" * 7000)  # would be found out if anything of it stayed
    web.answers = [lambda request, _: web.send(request, 0)]
    fetching(web.official)
    assert fetching.target.read_bytes() == web.content
    assert (web.ranges, fetching.reasons) == (["bytes=7000-"], [])


@pytest.mark.parametrize(
    "answer",
    [
        status(416),
        status(206, **{"Content-Range": "bytes 10-99/100"}),
        status(206),
    ],
    ids=["416", "another range", "no range"],
)
def test_a_server_that_gets_ranges_wrong_is_asked_for_everything(web, fetching, answer):
    fetching.part.write_bytes(web.content[:7000])
    web.answers = [answer]
    fetching(web.official)
    assert fetching.target.read_bytes() == web.content
    assert web.ranges == ["bytes=7000-", None]


def test_a_stall_is_cut_short(web, fetching):
    def stall(request, start):
        web.send(request, start, 3000)
        web.over.wait(10)

    web.answers = [stall]
    fetching(web.official, timeout=0.2)
    assert fetching.target.read_bytes() == web.content
    assert fetching.reasons == ["nothing came for 0.2 s"]


def test_a_server_that_accepts_and_says_nothing(web, fetching):
    web.answers = [lambda *_: web.over.wait(10) and None] * (len(PAUSES) + 1)
    assert "nothing came for 0.1 s" in fetching.fails(web.official, timeout=0.1)
    assert fetching.slept == list(PAUSES)


def test_a_server_that_always_cuts_is_given_up_and_what_came_is_kept(web, fetching):
    web.answers = [lambda request, start: web.send(request, start, 100)] * 50
    message = fetching.fails(web.official)
    assert f"the connection ended after {100 * (len(PAUSES) + 1)} of" in message
    assert "the same command goes on from there" in message
    assert fetching.part.read_bytes() == web.content[: 100 * (len(PAUSES) + 1)]
    assert fetching.slept == list(PAUSES)


def test_cuts_that_bring_it_further_are_borne_but_not_for_ever(web, fetching, monkeypatch):
    monkeypatch.setattr(module, "WORTHWHILE", 1000)
    web.answers = [lambda request, start: web.send(request, start, 1000)] * 8
    fetching(web.official)
    assert fetching.slept == [PAUSES[0]] * 8
    fetching.target.unlink()
    # With no ranges, each attempt brings as much, and none brings it further.
    web.answers = [lambda request, _: web.send(request, 0, 1000)] * 50
    fetching.slept.clear()
    fetching.fails(web.official)
    assert fetching.slept == list(PAUSES)


def test_wrong_bytes_do_not_get_the_name(web, fetching):
    official = web.official
    web.content = web.content[:-1] + bytes([web.content[-1] ^ 1])
    message = fetching.fails(official)
    assert f"their MD5 is {web.official.md5}, not {official.md5}" in message
    assert not fetching.part.exists()
    assert web.ranges == [None]


@pytest.mark.parametrize("announced", [10, 10**12])
def test_another_length_is_refused_before_it_is_read(web, fetching, announced):
    web.answers = [status(200, **{"Content-Length": str(announced)})]
    assert f"the server offers {announced:,} bytes where the file has {len(web.content):,}" in fetching.fails(
        web.official
    )
    assert fetching.progress == []


def test_a_range_of_a_file_of_another_length_is_refused(web, fetching):
    fetching.part.write_bytes(web.content[:10])
    web.answers = [status(206, **{"Content-Range": "bytes 10-98/99"})]
    assert "the server offers 99 bytes" in fetching.fails(web.official)


def test_more_than_the_file_without_a_length(web, fetching):
    def endless(request, _):
        request.send_response(200)
        request.end_headers()
        try:
            while not web.over.is_set():
                request.wfile.write(b"z" * 4096)
        except OSError:
            pass  # the other side has hung up, as it should

    web.answers = [endless]
    assert f"more than the file's {len(web.content):,} bytes" in fetching.fails(web.official)
    assert not fetching.part.exists()


def test_no_length_at_all_is_no_fault(web, fetching):
    def answer(request, _):
        request.send_response(200)
        request.end_headers()
        request.wfile.write(web.content)

    web.answers = [answer]
    fetching(web.official)
    assert fetching.target.read_bytes() == web.content


def test_redirects_are_followed_with_the_range(web, fetching):
    fetching.part.write_bytes(web.content[:7000])
    web.answers = [status(302, Location="/elsewhere"), status(307, Location=web.url)]
    fetching(web.official)
    assert fetching.target.read_bytes() == web.content
    assert web.ranges == ["bytes=7000-"] * 3


def test_redirects_without_end(web, fetching):
    web.answers = [status(302, Location=web.url)] * 50
    assert "the server answered 302" in fetching.fails(web.official)


def test_a_busy_server_is_asked_again(web, fetching):
    web.answers = [status(503), status(429)]
    fetching(web.official)
    assert fetching.target.read_bytes() == web.content
    assert fetching.reasons == ["the server answered 503", "the server answered 429"]
    assert fetching.slept == list(PAUSES[:2])


@pytest.mark.parametrize("code", [404, 403, 204])
def test_a_refusal_is_final(web, fetching, code):
    web.answers = [status(code)]
    assert f"the server answered {code}" in fetching.fails(web.official)
    assert fetching.slept == []


def test_nobody_listens(web, fetching):
    official = web.official
    web.close()
    assert "refused" in fetching.fails(official)
    assert fetching.slept == list(PAUSES)
    assert list(fetching.target.parent.iterdir()) == []


def test_offline_is_said_at_once(web, fetching, monkeypatch):
    def no_name(*_, **__):
        raise socket.gaierror(-3, "Temporary failure in name resolution")

    monkeypatch.setattr(socket, "getaddrinfo", no_name)
    assert "the server's name was not found (no network?)" in fetching.fails(web.official)
    assert fetching.slept == []


def test_no_http_at_all(web, fetching):
    web.answers = [lambda request, _: request.wfile.write(b"SSH-2.0-hello\r\n") and None] * 9
    assert "the answer is no proper HTTP (BadStatusLine)" in fetching.fails(web.official)


def test_a_chunked_answer_that_breaks_off(web, fetching):
    def answer(request, _):
        request.protocol_version = "HTTP/1.1"
        request.send_response(200)
        request.send_header("Transfer-Encoding", "chunked")
        request.end_headers()
        request.wfile.write(b"1000\r\n" + web.content[:0x800])
        request.close_connection = True

    web.answers = [answer]
    fetching(web.official)
    assert fetching.target.read_bytes() == web.content
    assert len(fetching.reasons) == 1


def test_proxies_come_from_the_usual_variables(web, fetching, monkeypatch):
    monkeypatch.setenv("http_proxy", web.url.rpartition("/tensorflow")[0])
    elsewhere = OfficialFile("vgg19", "VGG-19", "http://weights.invalid/v.h5", web.official.size, web.official.md5)
    fetching(elsewhere)
    assert fetching.target.read_bytes() == web.content


def test_a_proxy_variable_that_is_no_address(web, fetching, monkeypatch):
    monkeypatch.setenv("http_proxy", "http://[::1")
    fetching.fails(web.official)
