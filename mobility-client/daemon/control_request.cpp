// SPDX-License-Identifier: GPL-2.0-or-later
#include "daemon/control_request.hpp"

#include <cerrno>
#include <nlohmann/json.hpp>

namespace mobility::client {

tcpmigrate::Result<ControlRequest> parse_request(std::string_view line) {
    const auto request = nlohmann::json::parse(line, nullptr, false);
    const auto* command = request.is_object() && request.contains("command")
                              ? request["command"].get_ptr<const std::string*>()
                              : nullptr;
    if (command == nullptr) {
        return tcpmigrate::make_error(EBADMSG, "a request is an object with a \"command\"");
    }
    ControlRequest out{*command, 0, false};
    if (const auto lines = request.find("lines");
        lines != request.end() && lines->is_number_unsigned()) {
        out.lines = lines->get<std::size_t>();
    }
    if (const auto follow = request.find("follow"); follow != request.end()) {
        out.follow = follow->is_boolean() && follow->get<bool>();
    }
    return out;
}

}  // namespace mobility::client
