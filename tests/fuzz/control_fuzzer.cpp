// SPDX-License-Identifier: GPL-2.0-or-later
// Feeds arbitrary lines to the reader of what migrate-ctl asks the daemon: what it accepts
// can be asked again, and means the same.

#include <cstdint>
#include <cstdlib>
#include <nlohmann/json.hpp>
#include <string_view>

#include "daemon/control_request.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    using nlohmann::json;
    const std::string_view line(reinterpret_cast<const char*>(data), size);
    const auto request = mobility::client::parse_request(line);
    if (!request) {
        return 0;
    }
    const json said{
        {"command", request->command}, {"lines", request->lines}, {"follow", request->follow}};
    const auto again =
        mobility::client::parse_request(said.dump(-1, ' ', false, json::error_handler_t::replace));
    if (!again || *again != *request) {
        std::abort();
    }
    return 0;
}
