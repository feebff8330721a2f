// SPDX-License-Identifier: GPL-2.0-or-later
// key and export. A secret comes from a file or standard input, never from the
// command line, where every user of the machine could read it.

#include <strings.h>
#include <sys/stat.h>

#include <array>
#include <cerrno>
#include <istream>
#include <nlohmann/json.hpp>
#include <ostream>

#include "commands.hpp"
#include "output.hpp"

namespace ctl {

using tcpmigrate::KeyOp;
using tcpmigrate::KeyRequest;
using tcpmigrate::make_error;
using tcpmigrate::Result;
using tcpmigrate::Secret;

namespace {

constexpr std::size_t kMaxSecretText = 256;

Result<KeyOp> parse_op(const std::string& text) {
    constexpr std::array<std::string_view, 4> kNames{"add", "promote", "exclusive", "remove"};
    for (std::size_t i = 0; i < kNames.size(); i++) {
        if (text == kNames[i]) {
            return static_cast<KeyOp>(i);
        }
    }
    return make_error(EINVAL,
                      "'" + text + "' is no key operation: add, promote, exclusive, remove");
}

void warn_if_readable(const System& system, const std::string& path) {
    struct stat info {};
    if (stat(path.c_str(), &info) == 0 && S_ISREG(info.st_mode) && (info.st_mode & 077) != 0) {
        system.err << "migrate-ctl: warning: others can read " << path << "; `chmod 600 " << path
                   << "`\n";
    }
}

Result<Secret> read_secret(const System& system, const std::string& path) {
    if (path.empty()) {
        return make_error(EINVAL,
                          "adding a key takes --secret-file FILE, or --secret-file - for "
                          "standard input");
    }
    std::string content;
    if (path == "-") {
        content.resize(kMaxSecretText);
        system.in.read(content.data(), static_cast<std::streamsize>(content.size()));
        content.resize(static_cast<std::size_t>(system.in.gcount()));
    } else {
        auto text = read_file(path);
        if (!text) {
            return make_error(EINVAL, text.error().message);
        }
        content = std::move(*text);
        warn_if_readable(system, path);
    }
    auto secret = Secret::parse(content);
    explicit_bzero(content.data(), content.size());
    return secret;
}

Result<KeyRequest> make_request(const System& system, const KeyOptions& options) {
    auto op = parse_op(options.op);
    if (!op) {
        return op.error();
    }
    KeyRequest request;
    request.op = *op;
    request.key_id = static_cast<std::uint8_t>(options.id);
    if (options.remote.empty()) {
        auto name = parse_name(options.name);
        if (!name) {
            return name.error();
        }
        std::visit([&](const auto& value) { request.target = value; }, *name);
    } else if (options.name.empty()) {
        auto address = tcpmigrate::Address::parse(options.remote);
        if (!address) {
            return address.error();
        }
        request.target = *address;
    } else {
        return make_error(EINVAL, "name one connection or give --remote, not both");
    }
    if (request.op == KeyOp::Add) {
        auto secret = read_secret(system, options.secret_file);
        if (!secret) {
            return secret.error();
        }
        request.secret = std::move(*secret);
    } else if (!options.secret_file.empty()) {
        return make_error(EINVAL, "only `key add` takes a secret");
    }
    return request;
}

std::string subject_of(const KeyRequest& request) {
    if (const auto* address = std::get_if<tcpmigrate::Address>(&request.target)) {
        return "to " + address->to_string();
    }
    tcpmigrate::Name name;
    std::visit(
        [&](const auto& value) {
            if constexpr (!std::is_same_v<std::decay_t<decltype(value)>, tcpmigrate::Address>) {
                name = value;
            }
        },
        request.target);
    return to_string(name);
}

std::string hex(std::span<const std::byte> bytes) {
    constexpr std::string_view kDigits = "0123456789abcdef";
    std::string text;
    for (const auto byte : bytes) {
        text += kDigits[std::to_integer<unsigned>(byte) >> 4U];
        text += kDigits[std::to_integer<unsigned>(byte) & 15U];
    }
    return text;
}

}  // namespace

int run_key(const System& system, const KeyOptions& options) {
    auto request = make_request(system, options);
    if (!request) {
        (void)report(system, request.error());
        return kUsage;
    }
    auto client = system.client();
    if (!client) {
        return report_open(system, client.error());
    }
    const auto subject = subject_of(*request);
    auto count = client->key(*request);
    if (!count) {
        return report(system, count.error(), subject);
    }
    if (system.json) {
        print_json(system, {{"connections", *count}});
    } else {
        system.out << "key " << options.id << ": " << options.op << ", " << *count
                   << (*count == 1 ? " connection\n" : " connections\n");
    }
    return kOk;
}

int run_export(const System& system, const std::vector<std::string>& words) {
    auto name = parse_name(words);
    if (!name) {
        (void)report(system, name.error());
        return kUsage;
    }
    auto client = system.client();
    if (!client) {
        return report_open(system, client.error());
    }
    auto value = client->export_value(*name);
    if (!value) {
        return report(system, value.error(), to_string(*name));
    }
    if (system.json) {
        print_json(system, {{"cookie", value->cookie}, {"exporter", hex(value->exporter)}});
    } else {
        system.out << hex(value->exporter) << '\n';
    }
    return kOk;
}

}  // namespace ctl
