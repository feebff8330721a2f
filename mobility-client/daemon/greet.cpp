// SPDX-License-Identifier: GPL-2.0-or-later
#include "daemon/greet.hpp"

#include <cerrno>
#include <string>
#include <utility>

namespace mobility::client {

using tcpmigrate::make_error;

Awaitable<Welcome> greet(Channel& channel, Hello hello) {
    hello.software = std::string("mobility-client ") + MOBILITY_VERSION;
    const auto bytes = encode(ToServer(std::move(hello)));
    const auto said = co_await channel.write(bytes);
    if (!said) {
        co_return said.error();
    }
    const auto heard = co_await channel.read();
    if (!heard) {
        co_return heard.error();
    }
    const auto message = decode_to_host(*heard);
    if (!message) {
        co_return message.error();
    }
    if (const auto* refused = std::get_if<Refused>(&*message)) {
        co_return make_error(EACCES, "the server refuses this host: " + refused->text);
    }
    const auto* welcome = std::get_if<Welcome>(&*message);
    if (welcome == nullptr) {
        co_return make_error(EPROTO, "the server's first word is no Welcome");
    }
    co_return *welcome;
}

}  // namespace mobility::client
