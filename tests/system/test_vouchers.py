# SPDX-License-Identifier: GPL-2.0-or-later
"""Hosts that have never met, and take nobody for whom no server vouches."""

import signal
import time

import pytest

from exchange import GLOBAL, done
from tcplab.topology import wait_for
from traffic import SIZE, Download, Idle

CLOCKS = 600   # s that clocks may differ
GOOD_FOR = 120   # s of a voucher in these tests


def strict(daemons, hosts):
    """Daemons whose server vouches for these hosts; their clients have its word, or know that there is none."""
    d = daemons(GLOBAL, vouching=f'[vouching]\nhosts = "{hosts}"\nseconds = {GOOD_FOR}\n')
    for client in d.clients:
        wait_for("the server's word", lambda c=client: c.count("vouchers_got") + c.count("vouchers_none"), 10, 0.05)
    return d


def test_who_is_vouched_for_is_agreed_with(daemons):
    """The two have never met; both say who vouches for the other, and the connection survives a move."""
    d = strict(daemons, "admitted")
    traffic = Download(d.lab)
    for client, peer in ((d.a, d.b), (d.b, d.a)):
        client.agreed(traffic.port)
        pair = client.pair()
        assert (pair["host"], pair["trust"]) == (peer.identity(), "vouched")
        assert pair["vouched"]["server"] == d.servers[0].identity()
        assert (client.count("peer_vouched"), client.count("peer_refused")) == (1, 0)
        assert client.ask("status")["vouchers"][0]["server"] == d.servers[0].identity()
        for command in ("status", "pairs"):
            client.fits(command)
        assert f"vouched; {d.servers[0].identity()} vouches for it until" in client.ctl("pairs")
        assert "vouches for this host until" in client.ctl("status")
        assert f"{peer.identity()} " in (client.home / "pins").read_text(), "it is pinned ..."
        assert (client.home / "pins").read_text().endswith(" vouched\n"), "... and not known by that"
    d.lab.a.move("core")
    done(d.lab, traffic)


def test_who_is_not_is_refused_and_told_what_to_do(daemons):
    """Nothing is agreed; the connection still moves with A alone. What B's log says to do helps."""
    d = strict(daemons, "nobody")
    traffic = Idle(d.lab)
    wait_for("A to be refused", lambda: d.a.ask("status")["alone"], 10, 0.05)
    why = d.a.ask("status")["alone"][0]["why"]
    assert "no server that is trusted there vouches for this host" in why
    assert "does not vouch for this host" in d.a.ctl("status")
    assert f"add the name to {d.b.listed}" in d.b.said()
    assert d.b.count("peer_refused") == 1
    assert [c.ask("pairs") for c in d.clients if any(p["agreed"] for p in c.ask("pairs"))] == []
    assert d.lab.a.connection(traffic.port)["key-mask"] == 1, "the handshake's key"
    for client, peer in ((d.a, d.b), (d.b, d.a)):
        client.listed.write_text(f"{peer.identity()}\n")
        client.child.send_signal(signal.SIGHUP)
        wait_for("the reload", lambda c=client: "event=reloaded" in c.said(), every=0.02)
    d.a.ask("report")
    for client in d.clients:
        client.agreed(traffic.port)
        assert client.pair()["trust"] == "listed"
    d.lab.a.move("core")
    done(d.lab, traffic)


@pytest.mark.virtual
def test_vouchers_are_renewed_until_a_host_is_taken_off(daemons):
    """The server knows A no more: its last voucher runs out, and new connections are on their own."""
    d = strict(daemons, "admitted")
    first = Idle(d.lab)
    for client in d.clients:
        client.agreed(first.port)
    time.sleep(5 * GOOD_FOR)
    assert 9 <= d.a.count("vouchers_got") <= 11, "at the start, and whenever half of the time was over"
    server = d.servers[0]
    server.tokens.write_text("another-token-of-the-server\n")
    server.enrolled.write_text(d.b.identity() + "\n")
    server.child.send_signal(signal.SIGHUP)
    wait_for("the reload", lambda: "event=reloaded" in server.said(), every=0.02)
    time.sleep(GOOD_FOR + CLOCKS + 1)
    second = Download(d.lab, size=4 * SIZE)
    wait_for("A to be refused", lambda: d.b.count("peer_refused"), 10, 0.05)
    assert "has expired" in d.b.said()
    assert d.a.count("vouchers_failed") >= 1
    assert [len(c.pair()["connections"]) for c in d.clients] == [1, 1], "what was agreed goes on"
    assert d.b.pair()["trust"] == "first-use"
    d.lab.a.move("core")
    for traffic in (first, second):
        traffic.resumed()
    for traffic in (first, second):
        traffic.finish()
