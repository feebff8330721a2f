// SPDX-License-Identifier: GPL-2.0-or-later
#include "daemon/trust.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <sstream>
#include <utility>
#include <vector>

#include "libmobility/address.hpp"
#include "libmobility/lists.hpp"

namespace mobility::client {

using tcpmigrate::make_error;

namespace {

constexpr std::string_view kVouched = "vouched";  ///< in a line of the file `pins`

/// Of private networks, a link, or this host: not of one host alone.
bool is_global(const boost::asio::ip::address& address) {
    if (address.is_v6()) {
        const auto first = address.to_v6().to_bytes()[0];
        return !address.to_v6().is_link_local() && !address.is_loopback() &&
               (first & 0xfe) != 0xfc;  // RFC 4193
    }
    const auto bits = address.to_v4().to_uint();
    return !address.is_loopback() && bits >> 24 != 10 && bits >> 20 != 0xac1 &&
           bits >> 16 != 0xc0a8 && bits >> 22 != 0x191 && bits >> 16 != 0xa9fe;
}

std::optional<boost::asio::ip::address> only_global(
    const std::optional<boost::asio::ip::address>& address) {
    return address && is_global(*address) ? address : std::nullopt;
}

/// The whole text, on the disk when this returns: either it or what was there.
Result<void> replace_file(const std::filesystem::path& file, const std::string& text) {
    const auto fresh = file.string() + ".new";
    const int fd = ::open(fresh.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0) {
        return make_error(errno, fresh + ": cannot write: " + std::strerror(errno));
    }
    const bool written =
        ::write(fd, text.data(), text.size()) == static_cast<ssize_t>(text.size()) &&
        ::fsync(fd) == 0;
    const int code = errno;
    ::close(fd);
    if (!written || ::rename(fresh.c_str(), file.c_str()) != 0) {
        const int why = written ? errno : code;
        return make_error(why, file.string() + ": cannot write: " + std::strerror(why));
    }
    return {};
}

}  // namespace

std::string_view to_string(Trusted trusted) {
    constexpr std::array<std::string_view, 4> names{"first-use", "vouched", "pinned", "listed"};
    return names.at(static_cast<std::size_t>(trusted));
}

Result<Trust> Trust::load(const TrustConfig& config, Clock clock) {
    Trust trust(config, std::move(clock));
    if (const auto listed = trust.reload(config); !listed) {
        return listed.error();
    }
    if (const auto pins = trust.read_pins(); !pins) {
        return pins.error();
    }
    return trust;
}

Result<void> Trust::reload(const TrustConfig& config) {
    auto listed = read_names(config.listed);
    if (!listed) {
        return listed.error();
    }
    listed_ = std::move(*listed);
    // The pins in memory are those of the file that was named at the start.
    config_.require = config.require;
    config_.listed = config.listed;
    config_.vouching = config.vouching;
    return {};
}

/// "NAME ADDRESS" or "NAME -", the oldest first; " vouched" follows if the host was taken for
/// a voucher.
Result<void> Trust::read_pins() {
    std::ifstream in(config_.pins);
    if (!in) {
        return errno == ENOENT ? Result<void>()
                               : make_error(errno, config_.pins.string() +
                                                       ": cannot read: " + std::strerror(errno));
    }
    std::string line;
    for (std::size_t number = 1; std::getline(in, line); number++) {
        std::istringstream words(line);
        std::string first;
        std::string second;
        std::string third;
        words >> first >> second >> third;
        if (first.empty() || first.front() == '#') {
            continue;
        }
        const auto name = Name::parse(first);
        boost::system::error_code failed;
        Pin pin{++last_, {}, third == kVouched};
        if (second != "-" && !second.empty()) {
            pin.address = boost::asio::ip::make_address(second, failed);
        }
        if (!name || failed) {
            return make_error(EBADMSG, config_.pins.string() + ":" + std::to_string(number) +
                                           ": not a name and an address, or -");
        }
        pins_.insert_or_assign(*name, pin);
    }
    return {};
}

Result<void> Trust::write_pins() const {
    std::vector<std::pair<std::uint64_t, std::string>> lines;
    for (const auto& [name, pin] : pins_) {
        lines.emplace_back(pin.order, name.to_string() + " " +
                                          (pin.address ? pin.address->to_string() : "-") +
                                          (pin.vouched ? " " + std::string(kVouched) : "") + "\n");
    }
    std::ranges::sort(lines);
    std::string text = "# Hosts that were met: name, and where. Read at the start.\n";
    for (const auto& [order, line] : lines) {
        text += line;
    }
    return replace_file(config_.pins, text);
}

Trusted Trust::of(const Name& name, bool vouched) const {
    if (listed_.contains(name)) {
        return Trusted::Listed;
    }
    const auto pin = pins_.find(name);
    if (pin != pins_.end() && !pin->second.vouched) {
        return Trusted::Pinned;
    }
    return vouched ? Trusted::Vouched : Trusted::FirstUse;
}

std::optional<Name> Trust::other_at(const Name& name, const Address& there) const {
    const auto found = std::ranges::find_if(pins_, [&](const auto& entry) {
        return entry.second.address == there && entry.first != name;
    });
    return found == pins_.end() ? std::nullopt : std::optional(found->first);
}

Result<void> Trust::check(const Name& name, const std::optional<Address>& there) const {
    const auto known = of(name);
    if (known == Trusted::Listed) {
        return {};
    }
    if (const auto global = only_global(there)) {
        if (const auto other = other_at(name, *global)) {
            return make_error(EACCES, "the host at " + global->to_string() + " is " +
                                          name.to_string() + ", and was " + other->to_string() +
                                          ": if that is right, remove its line from " +
                                          config_.pins.string() + " and start again");
        }
    }
    // What a voucher would mend is seen when there is one.
    const auto best = std::max(known, Trusted::Vouched);
    if (static_cast<int>(best) < static_cast<int>(config_.require)) {
        return make_error(EACCES, "the host " + name.to_string() + " is not " +
                                      (config_.require == TrustConfig::Require::Listed
                                           ? "in " + config_.listed.string()
                                           : std::string("known")));
    }
    return {};
}

Result<void> Trust::admit(const Name& name, const Result<Vouched>& vouched) const {
    const auto known = of(name, static_cast<bool>(vouched));
    if (static_cast<int>(known) < static_cast<int>(config_.require)) {
        const auto why = vouched ? "" : " (" + vouched.error().message + ")";
        return make_error(
            EACCES, "no server of vouching_servers vouches for the host " + name.to_string() + why +
                        ": have one do so, or add the name to " + config_.listed.string());
    }
    return {};
}

/// Those go first that were never taken without a voucher: whoever can have many hosts vouched
/// for shall not have the others forgotten.
void Trust::make_room() {
    if (pins_.size() >= kMaxPins) {
        pins_.erase(std::ranges::min_element(pins_, {}, [](const auto& entry) {
            return std::pair(!entry.second.vouched, entry.second.order);
        }));
    }
}

Result<void> Trust::pin(const Name& name, const std::optional<Address>& there, bool vouched) {
    const auto global = only_global(there);
    const auto known = pins_.find(name);
    if (known != pins_.end() && (!global || known->second.address == global) &&
        (vouched || !known->second.vouched)) {
        return {};
    }
    // An address is one host's: it was taken over by one that is listed.
    for (auto& [other, pin] : pins_) {
        if (global && pin.address == global) {
            pin.address.reset();
        }
    }
    if (known != pins_.end()) {
        known->second.address = global ? global : known->second.address;
        known->second.vouched = known->second.vouched && vouched;
    } else {
        make_room();
        pins_.emplace(name, Pin{++last_, global, vouched});
    }
    return write_pins();
}

Result<void> Trust::moved(const Name& name, const Address& there) {
    const auto known = pins_.find(name);
    if (known == pins_.end() || !known->second.address || known->second.address == there ||
        known->second.address->is_v6() != there.is_v6()) {
        return {};
    }
    known->second.address = only_global(there);
    return write_pins();
}

}  // namespace mobility::client
