// SPDX-License-Identifier: GPL-2.0-or-later
// Whom this host believes to be who they are. A peer's name is its key; what is to be known
// is whether that key is the one of the host that was meant.
//
//   listed      its name is in a file that the administrator keeps
//   pinned      it was met before; the file `pins` keeps it, as ssh's known_hosts
//   vouched     it shows a voucher of a server that is trusted for this: libmobility/voucher.hpp
//   first-use   nothing of all this: it is pinned when it has proved a connection
//
// Who was taken for a voucher gets a pin, too, which says so and does not make it known: it has
// to show a voucher again, or nobody could ever be taken off a server's lists. No voucher helps
// against a pin that says something else.
//
// A pin also holds the address at which this host has reached the peer, if that is a global
// one (private addresses belong to different hosts at different places). Another host at a
// pinned address is refused: somebody is in the way, or the address has a new owner, and
// then the line has to go. A pinned peer that moves takes its line along.
#pragma once

#include <boost/asio/ip/address.hpp>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "libmobility/identity.hpp"
#include "libmobility/voucher.hpp"

namespace mobility::client {

struct TrustConfig {
    /// Which peers it takes; each includes those after it.
    enum class Require : std::uint8_t { Any, Vouched, Pinned, Listed };

    Require require = Require::Any;
    std::filesystem::path listed = "/etc/mobility-client/hosts";
    std::filesystem::path pins = "/var/lib/mobility-client/pins";
    std::set<Name> vouching;  ///< servers that are trusted to vouch for hosts

    bool operator==(const TrustConfig&) const = default;
};

enum class Trusted : std::uint8_t { FirstUse, Vouched, Pinned, Listed };
[[nodiscard]] std::string_view to_string(Trusted trusted);

class Trust {
  public:
    using Address = boost::asio::ip::address;
    using Clock = std::function<std::chrono::sys_seconds()>;

    /// Pins that are kept; the first to be pinned goes first.
    static constexpr std::size_t kMaxPins = 10'000;

    /// Reads both files; EBADMSG, with file and line, if something in them is wrong.
    static Result<Trust> load(const TrustConfig& config, Clock clock = system_time);
    /// Reads the list again; the pins are as they are in memory.
    Result<void> reload(const TrustConfig& config);

    /// `vouched`: with a good voucher.
    [[nodiscard]] Trusted of(const Name& name, bool vouched = false) const;
    /// May this host be spoken with, whatever voucher it may show? `there`: where it is, if this
    /// host has reached it there itself. EACCES, with the reason.
    [[nodiscard]] Result<void> check(const Name& name, const std::optional<Address>& there) const;
    /// Who vouches for it, of the servers that are trusted for this: check_vouchers().
    [[nodiscard]] Result<Vouched> vouched(const Name& name,
                                          const std::vector<Voucher>& shown) const {
        return check_vouchers(shown, name, config_.vouching, today());
    }
    /// By the clock by which vouchers run out.
    [[nodiscard]] std::chrono::sys_seconds today() const { return clock_(); }
    /// May it, after all, with what vouched() has found? EACCES, with the reason and what to do.
    [[nodiscard]] Result<void> admit(const Name& name, const Result<Vouched>& vouched) const;
    /// It has proved a connection: it is known from now on, at this address; if it was taken
    /// only since it is `vouched` for, only the address is its. On the disk when this returns;
    /// if it cannot be written it is known until the end of the program.
    Result<void> pin(const Name& name, const std::optional<Address>& there, bool vouched);
    /// Has a pin at a global address, and is elsewhere now, in the same family: the pin goes
    /// along.
    Result<void> moved(const Name& name, const Address& there);

    [[nodiscard]] std::size_t pins() const { return pins_.size(); }

  private:
    struct Pin {
        std::uint64_t order = 0;  ///< in which they were made
        std::optional<Address> address;
        bool vouched = false;  ///< was never taken without a voucher
    };

    Trust(TrustConfig config, Clock clock) : config_(std::move(config)), clock_(std::move(clock)) {}
    static std::chrono::sys_seconds system_time() {
        return std::chrono::floor<std::chrono::seconds>(std::chrono::system_clock::now());
    }
    Result<void> read_pins();
    Result<void> write_pins() const;
    /// Makes room for another one, if there is none.
    void make_room();
    /// Who else is pinned at this address.
    [[nodiscard]] std::optional<Name> other_at(const Name& name, const Address& there) const;

    TrustConfig config_;
    Clock clock_;
    std::set<Name> listed_;
    std::map<Name, Pin> pins_;
    std::uint64_t last_ = 0;
};

}  // namespace mobility::client
