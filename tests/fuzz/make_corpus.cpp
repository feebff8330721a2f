// SPDX-License-Identifier: GPL-2.0-or-later
// Writes seeds into DIRECTORY/corpus, for decode_fuzzer, DIRECTORY/corpus-exchange, for
// exchange_fuzzer, DIRECTORY/corpus-rtnetlink, for rtnetlink_fuzzer, and DIRECTORY/corpus-segment,
// for segment_fuzzer: one good message of every kind, as the kernel, a host, a server or a proxy
// would send it. Usage: make_corpus DIRECTORY

#include <filesystem>
#include <fstream>
#include <iostream>
#include <span>
#include <utility>

// First of ours: these include net/if.h, which does not bear linux/if.h before it.
#include "libmobility/message.hpp"
#include "libmobility/peer_message.hpp"
#include "libmobility/proxy_message.hpp"

#include "fake_kernel.hpp"
#include "fake_rtnetlink.hpp"
#include "proxy_packets.hpp"

namespace {

using fake::Bytes;

std::filesystem::path g_directory;

void save(const char* name, const Bytes& bytes) {
    std::ofstream file(g_directory / name, std::ios::binary);
    file.write(reinterpret_cast<const char*>(bytes.data()),
               static_cast<std::streamsize>(bytes.size()));
}

fake::Connection rich(bool v6) {
    auto conn = fake::sample();
    if (v6) {
        conn.local = *fake::Endpoint::parse("[2001:db8::1]:5000");
        conn.remote = *fake::Endpoint::parse("[2001:db8::2]:80");
    }
    conn.peer_inner = fake::PeerInner{{std::byte{10}, {}, {}, std::byte{9}}, 6000};
    conn.token_local = 1;
    conn.token_remote = 2;
    conn.new_local = *fake::Target::parse(v6 ? "[2001:db8::3]:7" : "192.0.2.3:7");
    conn.uid = 0;
    conn.inode = 1;
    conn.left_ms = 1;
    conn.error = 104;
    return conn;
}

void save_netlink() {
    save("connection4", fake::make_connection_message(TCP_MIGRATE_CMD_GET, rich(false)));
    save("connection6", fake::make_connection_message(TCP_MIGRATE_CMD_GET, rich(true)));
    save("event", fake::make_connection_message(TCP_MIGRATE_CMD_EVENT, rich(false)));
    save("ack", fake::make_error_message(0));
    save("error", fake::make_error_message(EBUSY, "a trial is under way"));
    auto dump = fake::make_connection_message(TCP_MIGRATE_CMD_GET, fake::sample());
    const auto done = fake::make_done_message();
    dump.insert(dump.end(), done.begin(), done.end());
    save("dump", dump);
    save("migrate_all", fake::make_message(TCP_MIGRATE_CMD_MIGRATE_ALL, [](nl_msg* msg) {
             nla_put_u32(msg, TCP_MIGRATE_A_CONN_COUNT, 3);
             nla_put_u32(msg, TCP_MIGRATE_A_CONN_FAILED, 1);
             nla_put_u32(msg, TCP_MIGRATE_A_CONN_ERROR, EADDRINUSE);
         }));
    save("export", fake::make_message(TCP_MIGRATE_CMD_EXPORT, [](nl_msg* msg) {
             const Bytes value(32, std::byte{7});
             nla_put_u64(msg, TCP_MIGRATE_A_CONN_COOKIE, 17);
             nla_put(msg, TCP_MIGRATE_A_CONN_EXPORTER, 32, value.data());
         }));
}

void save_rtnetlink() {
    for (const auto& [name, datagram] : fake::rtnetlink_samples()) {
        save(name.c_str(), datagram);
    }
}

template <typename Message>
void save(const char* name, const Message& message) {
    const auto said = mobility::encode(message);
    const auto bytes = std::as_bytes(std::span(said.data(), said.size()));
    save(name, Bytes(bytes.begin(), bytes.end()));
}

/// As one looks; nobody has signed it.
mobility::Voucher voucher(std::uint8_t server) {
    const std::chrono::sys_seconds since(std::chrono::hours(1));
    return {{server}, since, since + std::chrono::hours(1), {}};
}

void save_exchange() {
    using boost::asio::ip::make_address;
    using mobility::ToHost;
    using mobility::ToServer;
    const auto v4 = make_address("192.0.2.1");
    const auto v6 = make_address("2001:db8::1");
    const mobility::PairId pair{1, 2, 3};
    const mobility::Name other({7});
    save("hello", ToServer(mobility::Hello{1, "mobility-client", "token", {}}));
    save("hello_tickets", ToServer(mobility::Hello{1, "", "", {{{}, other, pair, {}, {}}}}));
    save("hello_voucher", ToServer(mobility::Hello{1, "", "", {}, true}));
    save("report",
         ToServer(mobility::Report{
             {{}, v4, {}}, {other, v6, {}}, v4, v4, v6, {{1, 2, 1}, {3, 4, 5, 6}}, true}));
    save("outcome", ToServer(mobility::Outcome{pair, 1, 2, true}));
    save("forget", ToServer(mobility::Forget{pair}));
    save("welcome", ToHost(mobility::Welcome{1, v6, 4711, 64}));
    save("welcome_voucher", ToHost(mobility::Welcome{1, v6, 4711, 64, voucher(1)}));
    save("refused", ToHost(mobility::Refused{mobility::Refused::Why::Busy, "later", pair}));
    save("ask", ToHost(mobility::Ask{pair, {}}));
    save("ask_hint", ToHost(mobility::Ask{pair, mobility::Ask::Hint{v4, {{1, 2, 3, 4}}}}));
    save("notice", ToHost(mobility::Notice{pair, 1, 2, v4, true, {{1, 2, 3, 4}}}));
    save("notice_relay", ToHost(mobility::Notice{pair, 1, 2, v6, false, {{1, 2, 3, 4}}, true}));
    save("notice_delay",
         ToHost(mobility::Notice{
             pair, 1, 2, v4, true, {{1, 2, 3, 4}}, false, std::chrono::milliseconds(300)}));
    save("verdict", ToHost(mobility::Verdict{pair, 1, mobility::Verdict::What::NeedsProxy}));
}

void save_peers() {
    using mobility::ToPeer;
    const auto v4 = boost::asio::ip::make_address("192.0.2.1");
    const mobility::PairPart part{mobility::Name({7}), v4, {}};
    const mobility::ServerPlace server{mobility::Name({9}), v4.to_v4(), {}, 7790};
    const mobility::Ticket ticket{{}, mobility::Name({7}), {}, {}, {}};
    save("offer", ToPeer(mobility::Offer{1, "", part, {server}, {{1, 2, {}}}}));
    save("offer_vouchers",
         ToPeer(mobility::Offer{1, "", part, {}, {{1, 2, {}}}, {voucher(1), voucher(2)}}));
    save("answer_vouchers",
         ToPeer(mobility::Answer{1, "", part, v4, {}, {}, {}, {{2, 1, {}}}, {voucher(3)}}));
    save("answer",
         ToPeer(mobility::Answer{1, "", part, v4, {0, 1}, {server}, {ticket}, {{2, 1, {}}}}));
    save("confirm", ToPeer(mobility::Confirm{{}, v4, {0}, {ticket}}));
    save("prove", ToPeer(mobility::Prove{2, {{3, 4, {}}}}));
    save("proved", ToPeer(mobility::Proved{2, {{4, 3, {}}}}));
    save("stage", ToPeer(mobility::Stage{2, true}));
    save("peer_refused",
         ToPeer(mobility::PeerRefused{mobility::PeerRefused::Why::NotProved, "none"}));
}

void save_proxies() {
    using mobility::FromProxy;
    using mobility::ToProxy;
    const auto v4 = boost::asio::ip::make_address_v4("192.0.2.1");
    const auto v6 = boost::asio::ip::make_address_v6("2001:db8::1");
    const mobility::RelayPair one{{1, v4, 2}, {3, v4, 4}};
    const mobility::RelayPair other{{5, v4, 6}, {7, v4, 8}};
    save("greeting", ToProxy(mobility::Greeting{1, "mobility-server", true}));
    save("order",
         ToProxy(mobility::Order{9, mobility::Name({1}), mobility::Name({2}), {one, other}}));
    save("order6",
         ToProxy(mobility::Order{9, {}, mobility::Name({2}), {{{1, v6, 2}, {3, v6, 4}}}}));
    save("ready", FromProxy(mobility::Ready{1, v4, v6, {1, 60'000}}));
    save("reserved", FromProxy(mobility::Reserved{9, v4, {10'000, 10'001}}));
    save("declined", FromProxy(mobility::Declined{9, mobility::Declined::Why::Full, "no room"}));
    save("met", FromProxy(mobility::Met{9, {one, other}}));
    save("load", FromProxy(mobility::Load{2, 60'000}));
}

void save_segments_of(const std::string& family, const char* from, const char* to) {
    namespace proxy = mobility::proxy;
    using namespace proxy::test;  // NOLINT(google-build-using-namespace)
    using boost::asio::ip::make_address;
    using proxy::Form;
    const proxy::Tuple tuple{{make_address(from), 40'001}, {make_address(to), 20'000}};
    const auto save_one = [&](const std::string& name, const proxy::Octets& bytes) {
        const auto all = std::as_bytes(std::span(bytes));
        save((name + family).c_str(), Bytes(all.begin(), all.end()));
    };
    const auto made = [&](std::uint8_t flags, const proxy::Octets& options,
                          const proxy::Octets& payload = {}) {
        return packet({tuple, 1000, 2000, flags, options, payload});
    };
    save_one("msyn", made(proxy::flag::kSyn, syn_words() + mreq(Form::Mreq, 1, 7, 40'001)));
    save_one("request", made(proxy::flag::kAck, mreq(Form::Mreq, 1, 7, 40'001)));
    save_one("mans", made(proxy::flag::kAck, mreq(Form::Mans, 1, 7, 22)));
    save_one("confirm", made(proxy::flag::kAck, timestamps(1, 2) + confirm(1, 7)));
    const auto data = made(proxy::flag::kAck, timestamps(1, 2), proxy::Octets(20, 0x2a));
    save_one("data", data);
    save_one("reset", made(proxy::flag::kRst, {}));
    save_one("too_big", proxy::too_big_for(data, 1280));
}

void save_segments() {
    save_segments_of("4", "198.51.100.1", "203.0.113.9");
    save_segments_of("6", "2001:db8::1", "2001:db8::9");
}

}  // namespace

int main(int argc, char** argv) {
    if (argc != 2) {
        std::cerr << "usage: make_corpus DIRECTORY\n";
        return 2;
    }
    const std::filesystem::path directory = argv[1];
    for (const auto& [name, save_all] :
         {std::pair("corpus", &save_netlink), std::pair("corpus-exchange", &save_exchange),
          std::pair("corpus-exchange", &save_peers), std::pair("corpus-exchange", &save_proxies),
          std::pair("corpus-rtnetlink", &save_rtnetlink),
          std::pair("corpus-segment", &save_segments)}) {
        g_directory = directory / name;
        std::filesystem::create_directories(g_directory);
        save_all();
    }
    return 0;
}
