// SPDX-License-Identifier: GPL-2.0-or-later
// Whom this host believes to be who they are. A peer's name is its key; what is to be known
// is whether that key is the one of the host that was meant.
//
//   listed      its name is in a file that the administrator keeps
//   pinned      it was met before; the file `pins` keeps it, as ssh's known_hosts
//   first-use   neither: it is pinned when it has proved a connection
//
// A pin also holds the address at which this host has reached the peer, if that is a global
// one (private addresses belong to different hosts at different places). Another host at a
// pinned address is refused: somebody is in the way, or the address has a new owner, and
// then the line has to go. A pinned peer that moves takes its line along.
#pragma once

#include <boost/asio/ip/address.hpp>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <string_view>

#include "libmobility/identity.hpp"

namespace mobility::client {

struct TrustConfig {
    /// Which peers it takes; each includes those after it.
    enum class Require : std::uint8_t { Any, Pinned, Listed };

    Require require = Require::Any;
    std::filesystem::path listed = "/etc/mobility-client/hosts";
    std::filesystem::path pins = "/var/lib/mobility-client/pins";

    bool operator==(const TrustConfig&) const = default;
};

enum class Trusted : std::uint8_t { FirstUse, Pinned, Listed };
[[nodiscard]] std::string_view to_string(Trusted trusted);

class Trust {
  public:
    using Address = boost::asio::ip::address;

    /// Pins that are kept; the first to be pinned goes first.
    static constexpr std::size_t kMaxPins = 10'000;

    /// Reads both files; EBADMSG, with file and line, if something in them is wrong.
    static Result<Trust> load(const TrustConfig& config);
    /// Reads the list again; the pins are as they are in memory.
    Result<void> reload(const TrustConfig& config);

    [[nodiscard]] Trusted of(const Name& name) const;
    /// May this host be spoken with? `there`: where it is, if this host has reached it there
    /// itself. EACCES, with the reason.
    [[nodiscard]] Result<void> check(const Name& name, const std::optional<Address>& there) const;
    /// It has proved a connection: it is known from now on, at this address. On the disk when
    /// this returns; if it cannot be written it is known until the end of the program.
    Result<void> pin(const Name& name, const std::optional<Address>& there);
    /// Has a pin at a global address, and is elsewhere now, in the same family: the pin goes
    /// along.
    Result<void> moved(const Name& name, const Address& there);

    [[nodiscard]] std::size_t pins() const { return pins_.size(); }

  private:
    struct Pin {
        std::uint64_t order = 0;  ///< in which they were made
        std::optional<Address> address;
    };

    explicit Trust(TrustConfig config) : config_(std::move(config)) {}
    Result<void> read_pins();
    Result<void> write_pins() const;
    /// Who else is pinned at this address.
    [[nodiscard]] std::optional<Name> other_at(const Name& name, const Address& there) const;

    TrustConfig config_;
    std::set<Name> listed_;
    std::map<Name, Pin> pins_;
    std::uint64_t last_ = 0;
};

}  // namespace mobility::client
