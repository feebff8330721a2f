// SPDX-License-Identifier: GPL-2.0-or-later
#include "config.hpp"

#define TOML_EXCEPTIONS 0
#include <toml++/toml.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <fstream>
#include <set>
#include <sstream>

namespace mobility::server {

namespace {

using boost::asio::ip::make_address;
using tcpmigrate::make_error;

/// "192.0.2.1:7790" or "[2001:db8::1]:7790".
std::optional<Config::Endpoint> parse_endpoint(std::string_view text) {
    const auto colon = text.rfind(':');
    if (colon == std::string_view::npos) {
        return {};
    }
    auto host = text.substr(0, colon);
    const auto digits = text.substr(colon + 1);
    const bool brackets = host.size() > 2 && host.front() == '[' && host.back() == ']';
    if (brackets) {
        host = host.substr(1, host.size() - 2);
    }
    std::uint16_t port = 0;
    const auto read = std::from_chars(digits.data(), digits.data() + digits.size(), port);
    boost::system::error_code failed;
    const auto address = make_address(std::string(host), failed);
    if (failed || read.ec != std::errc() || read.ptr != digits.data() + digits.size() ||
        address.is_v6() != brackets) {
        return {};
    }
    return Config::Endpoint(address, port);
}

/// Reads settings and remembers the first that is wrong, and which there are.
class Reader {
  public:
    Reader(const toml::table& root, std::string name) : root_(root), name_(std::move(name)) {}

    void number(const char* section, const char* key, std::size_t& out, std::int64_t least,
                std::int64_t most) {
        if (const auto* node = find(section, key)) {
            const auto value = node->value_exact<std::int64_t>();
            if (!value || *value < least || *value > most) {
                return wrong(*node, std::string(key) + " must be a number from " +
                                        std::to_string(least) + " to " + std::to_string(most));
            }
            out = static_cast<std::size_t>(*value);
        }
    }

    void seconds(const char* section, const char* key, Duration& out) {
        auto count =
            static_cast<std::size_t>(std::chrono::duration_cast<std::chrono::seconds>(out).count());
        number(section, key, count, 1, 86'400);
        out = std::chrono::seconds(count);
    }

    void text(const char* section, const char* key, std::string& out) {
        if (const auto* node = find(section, key)) {
            const auto value = node->value_exact<std::string>();
            if (!value || value->empty()) {
                return wrong(*node, std::string(key) + " must be a text");
            }
            out = *value;
        }
    }

    void file(const char* section, const char* key, std::filesystem::path& out) {
        std::string name = out;
        text(section, key, name);
        out = name;
    }

    void endpoints(const char* section, const char* key, std::vector<Config::Endpoint>& out) {
        if (const auto* node = find(section, key)) {
            out.clear();
            const auto* list = node->as_array();
            if (list == nullptr || list->empty()) {
                return wrong(*node, std::string(key) + " must be a list: [\"[::]:7790\"]");
            }
            list->for_each([&](const auto& one) { out.push_back(endpoint(one, key)); });
        }
    }

    void endpoint(const char* section, const char* key, std::optional<Config::Endpoint>& out) {
        if (const auto* node = find(section, key)) {
            out = endpoint(*node, key);
        }
    }

    void one_of(const char* section, const char* key, std::string& out,
                const std::vector<std::string>& allowed) {
        text(section, key, out);
        if (std::ranges::find(allowed, out) == allowed.end()) {
            std::string all;
            for (const auto& value : allowed) {
                all += (all.empty() ? "" : ", ") + value;
            }
            wrong(*find(section, key), std::string(key) + " must be one of " + all);
        }
    }

    /// What nobody has asked for does not exist.
    void all_known() {
        for (const auto& [section, node] : root_) {
            const auto* table = node.as_table();
            if (table == nullptr) {
                return wrong(node, "\"" + std::string(section) + "\" is no section");
            }
            for (const auto& [key, value] : *table) {
                if (!asked_.contains(std::string(section) + "." + std::string(key))) {
                    return wrong(value, "there is no setting \"" + std::string(key) + "\" in [" +
                                            std::string(section) + "]");
                }
            }
        }
    }

    [[nodiscard]] Result<void> result() const {
        return wrong_.empty() ? Result<void>() : make_error(EBADMSG, wrong_);
    }

  private:
    const toml::node* find(const char* section, const char* key) {
        asked_.insert(std::string(section) + "." + key);
        return root_[section][key].node();
    }

    Config::Endpoint endpoint(const toml::node& node, const char* key) {
        const auto value = node.value_exact<std::string>();
        const auto there = value ? parse_endpoint(*value) : std::nullopt;
        if (!there) {
            wrong(node, std::string(key) + " must be an address and a port, as \"192.0.2.1:7790\"" +
                            " or \"[2001:db8::1]:7790\"");
        }
        return there.value_or(Config::Endpoint());
    }

    void wrong(const toml::node& node, const std::string& what) {
        if (wrong_.empty()) {
            wrong_ = name_ + ":" + std::to_string(node.source().begin.line) + ": " + what;
        }
    }

    const toml::table& root_;
    std::string name_;
    std::set<std::string> asked_;
    std::string wrong_;
};

void read_limits(Reader& read, ServiceLimits& service, Limits& exchange) {
    constexpr auto kMany = std::int64_t{10'000'000};
    const char* limits = "limits";
    read.number(limits, "channels", service.channels, 1, kMany);
    read.number(limits, "channels_per_host", service.channels_per_host, 1, 1000);
    read.number(limits, "guests_per_host", service.guests_per_host, 0, kMany);
    read.number(limits, "strangers", service.strangers, 1, kMany);
    read.number(limits, "strangers_per_address", service.strangers_per_address, 1, kMany);
    read.seconds(limits, "introduction_seconds", service.introduction);
    read.number(limits, "messages_per_second", service.messages_per_second, 1, kMany);
    read.number(limits, "burst", service.burst, 1, kMany);
    // Room for the longest message at least.
    read.number(limits, "unsent_bytes", service.unsent, kMaxFrame, std::int64_t{1} << 30);
    read.number(limits, "pairs_per_host", exchange.pairs_per_host, 1, kMany);
    read.number(limits, "pairs", exchange.pairs, 1, kMany);
    read.seconds(limits, "keep_seconds", exchange.keep);
    read.seconds(limits, "silence_seconds", exchange.silence);
}

}  // namespace

Result<Config> parse_config(std::string_view text, const std::string& name) {
    const auto parsed = toml::parse(text, name);
    if (!parsed) {
        const auto& error = parsed.error();
        return make_error(EBADMSG, name + ":" + std::to_string(error.source().begin.line) + ": " +
                                       std::string(error.description()));
    }
    Config config;
    Reader read(parsed.table(), name);
    read.endpoints("server", "listen", config.listen);
    read.file("server", "identity", config.identity);
    read.file("admission", "hosts", config.admission.hosts);
    read.file("admission", "tokens", config.admission.tokens);
    read.file("admission", "enrolled", config.admission.enrolled);
    read.endpoint("metrics", "listen", config.metrics);
    read.one_of("log", "level", config.log_level, {"trace", "debug", "info", "warn", "error"});
    read_limits(read, config.service, config.exchange);
    read.all_known();
    const auto good = read.result();
    return good ? Result<Config>(std::move(config)) : good.error();
}

Result<Config> load_config(const std::filesystem::path& file) {
    std::ifstream in(file);
    std::ostringstream text;
    text << in.rdbuf();
    if (!in) {
        const int code = errno;
        return make_error(code, file.string() + ": cannot read: " + std::strerror(code));
    }
    return parse_config(text.str(), file.string());
}

}  // namespace mobility::server
