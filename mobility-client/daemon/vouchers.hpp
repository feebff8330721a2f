// SPDX-License-Identifier: GPL-2.0-or-later
// Vouchers for this host, of its own servers: peers are shown them, so that they know it at
// their first meeting.
//
//     wanted --connect, TLS, Hello--> Welcome with one: another when half of its time is over
//                | failed: again,       | without: again in an hour; what there was is not
//                v ever later           v shown any more
//
// They are fetched beforehand, on channels of their own that end at once: what is kept to a
// server is for pairs that have agreed, and this is what they need to. When the host is
// elsewhere, what has failed is tried again at once. Nothing of it is kept on disk.
//
// Single-threaded: everything runs on the io_context, which must outlive it and has to have
// run dry after stop() before it goes.
#pragma once

#include <boost/asio/awaitable.hpp>
#include <boost/asio/io_context.hpp>
#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "daemon/prover.hpp"
#include "libmobility/channel.hpp"
#include "libmobility/log.hpp"
#include "libmobility/peer_message.hpp"

namespace mobility::client {

struct VoucherCounters {
    std::uint64_t got = 0;
    std::uint64_t none = 0;    ///< Welcomes without one
    std::uint64_t failed = 0;  ///< no Welcome
};

class Vouchers {
  public:
    /// A server, and how to be admitted there.
    struct Wanted {
        ServerPlace server;
        std::string token;

        bool operator==(const Wanted&) const = default;
    };
    /// What there is to see of one.
    struct Seen {
        Name server;
        std::optional<Voucher> voucher;
        std::uint32_t failures = 0;  ///< one after the other
        std::string why;             ///< there is none, or the last attempt has failed
    };

    /// All outlive it.
    Vouchers(boost::asio::io_context& io, const Tls& tls, const Name& self, Prover& prover,
             Log log);
    ~Vouchers();
    Vouchers(const Vouchers&) = delete;
    Vouchers& operator=(const Vouchers&) = delete;

    /// Is called when a server vouches for this host which did not before.
    void when_first(std::function<void()> on_first) { on_first_ = std::move(on_first); }
    /// Of these servers, and no others.
    void want(const std::vector<Wanted>& wanted);
    /// The host is elsewhere, or awake again: what has failed, or is over, is tried now.
    void retry();
    void stop();

    /// To be shown, in the order of the servers.
    [[nodiscard]] std::vector<Voucher> all() const;
    [[nodiscard]] std::vector<Seen> seen() const;
    [[nodiscard]] const VoucherCounters& counters() const { return counters_; }

  private:
    struct Source;
    using SourcePtr = std::shared_ptr<Source>;

    boost::asio::awaitable<void> run(SourcePtr source);
    boost::asio::awaitable<void> wait_until_due(SourcePtr source);
    [[nodiscard]] bool is_good(const Voucher& voucher, const Name& server) const;
    /// What the server says; nothing if it does not vouch for this host.
    Awaitable<std::optional<Voucher>> fetch(SourcePtr source);
    Awaitable<std::optional<Voucher>> ask(SourcePtr source);
    Awaitable<std::unique_ptr<Channel>> connect(SourcePtr source);
    void take(const SourcePtr& source, const Result<std::optional<Voucher>>& heard);
    static void drop(const SourcePtr& source);

    boost::asio::io_context& io_;
    const Tls& tls_;
    Name self_;
    Prover& prover_;
    Log log_;
    std::function<void()> on_first_;
    VoucherCounters counters_;
    std::vector<SourcePtr> sources_;
};

}  // namespace mobility::client
