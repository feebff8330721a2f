// SPDX-License-Identifier: GPL-2.0-or-later
#include "libmobility/settings.hpp"

#define TOML_EXCEPTIONS 0
#include <toml++/toml.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <fstream>
#include <set>
#include <sstream>
#include <utility>

namespace mobility {

using tcpmigrate::make_error;
using tcpmigrate::Result;

std::optional<boost::asio::ip::tcp::endpoint> parse_endpoint(std::string_view text) {
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
    const auto address = boost::asio::ip::make_address(std::string(host), failed);
    if (failed || read.ec != std::errc() || read.ptr != digits.data() + digits.size() ||
        address.is_v6() != brackets) {
        return {};
    }
    return boost::asio::ip::tcp::endpoint(address, port);
}

std::string to_text(const boost::asio::ip::tcp::endpoint& endpoint) {
    const auto address = endpoint.address().to_string();
    return (endpoint.address().is_v6() ? "[" + address + "]" : address) + ":" +
           std::to_string(endpoint.port());
}

Result<std::string> read_text(const std::filesystem::path& file) {
    errno = 0;
    std::ifstream in(file);
    std::ostringstream text;
    text << in.rdbuf();
    // An empty file gives nothing to insert, which is no failure.
    if (!in.is_open() || in.bad()) {
        const int code = errno != 0 ? errno : EIO;
        return make_error(code, file.string() + ": cannot read: " + std::strerror(code));
    }
    return text.str();
}

struct SettingsFile::Parsed {
    toml::table root;
    std::string name;
    std::set<const void*> asked;  ///< nodes that somebody has asked for
    std::string wrong;            ///< the first mistake

    void complain(const toml::source_region& where, const std::string& what) {
        if (wrong.empty()) {
            wrong = name + ":" + std::to_string(where.begin.line) + ": " + what;
        }
    }
};

namespace {

const toml::node& node_of(const void* node) {
    return *static_cast<const toml::node*>(node);
}

}  // namespace

// ---- Settings ----

/// The setting's node, null if it is not there.
const void* SettingsFile::Section::find(const char* key) {
    const auto* table = static_cast<const toml::table*>(table_);
    const toml::node* node = table != nullptr ? table->get(key) : nullptr;
    parsed_.asked.insert(node);
    return node;
}

void SettingsFile::Section::number(const char* key, std::size_t& out, std::int64_t least,
                                   std::int64_t most) {
    if (const auto* found = find(key)) {
        const auto& node = node_of(found);
        const auto value = node.value_exact<std::int64_t>();
        if (!value || *value < least || *value > most) {
            return parsed_.complain(node.source(), std::string(key) + " must be a number from " +
                                                       std::to_string(least) + " to " +
                                                       std::to_string(most));
        }
        out = static_cast<std::size_t>(*value);
    }
}

void SettingsFile::Section::seconds(const char* key, std::chrono::steady_clock::duration& out,
                                    std::int64_t least, std::int64_t most) {
    using std::chrono::seconds;
    auto count = static_cast<std::size_t>(std::chrono::duration_cast<seconds>(out).count());
    number(key, count, least, most);
    out = seconds(count);
}

void SettingsFile::Section::milliseconds(const char* key, std::chrono::steady_clock::duration& out,
                                         std::int64_t least, std::int64_t most) {
    using std::chrono::milliseconds;
    auto count = static_cast<std::size_t>(std::chrono::duration_cast<milliseconds>(out).count());
    number(key, count, least, most);
    out = milliseconds(count);
}

void SettingsFile::Section::flag(const char* key, bool& out) {
    if (const auto* found = find(key)) {
        const auto value = node_of(found).value_exact<bool>();
        if (!value) {
            return parsed_.complain(node_of(found).source(),
                                    std::string(key) + " must be true or false");
        }
        out = *value;
    }
}

void SettingsFile::Section::text(const char* key, std::string& out) {
    if (const auto* found = find(key)) {
        const auto value = node_of(found).value_exact<std::string>();
        if (!value || value->empty()) {
            return parsed_.complain(node_of(found).source(), std::string(key) + " must be a text");
        }
        out = *value;
    }
}

void SettingsFile::Section::file(const char* key, std::filesystem::path& out) {
    std::string name = out;
    text(key, name);
    out = name;
}

void SettingsFile::Section::one_of(const char* key, std::string& out,
                                   const std::vector<std::string>& allowed) {
    text(key, out);
    if (std::ranges::find(allowed, out) == allowed.end()) {
        std::string all;
        for (const auto& value : allowed) {
            all += (all.empty() ? "" : ", ") + value;
        }
        parsed_.complain(node_of(find(key)).source(), std::string(key) + " must be one of " + all);
    }
}

void SettingsFile::Section::parsed(
    const char* key, const std::function<std::string(const std::string& value)>& take) {
    if (const auto* found = find(key)) {
        const auto value = node_of(found).value_exact<std::string>();
        const auto wrong = take(value.value_or(""));
        if (!wrong.empty()) {
            parsed_.complain(node_of(found).source(), std::string(key) + " must be " + wrong);
        }
    }
}

void SettingsFile::Section::endpoint(const char* key, std::optional<Endpoint>& out) {
    parsed(key, [&](const std::string& value) {
        out = parse_endpoint(value);
        return out ? "" : "an address and a port, as \"192.0.2.1:7790\" or \"[2001:db8::1]:7790\"";
    });
}

void SettingsFile::Section::list(const char* key,
                                 const std::function<std::string(const std::string& value)>& take) {
    const auto* found = find(key);
    if (found == nullptr) {
        return;
    }
    const auto* values = node_of(found).as_array();
    if (values == nullptr) {
        return parsed_.complain(node_of(found).source(),
                                std::string(key) + " must be a list: [\"...\", \"...\"]");
    }
    values->for_each([&](const auto& one) {
        const auto value = static_cast<const toml::node&>(one).value_exact<std::string>();
        const auto wrong = take(value.value_or(""));
        if (!wrong.empty()) {
            parsed_.complain(one.source(), std::string(key) + " must be " + wrong);
        }
    });
}

void SettingsFile::Section::endpoints(const char* key, std::vector<Endpoint>& out) {
    const auto* found = find(key);
    if (found == nullptr) {
        return;
    }
    out.clear();
    list(key, [&](const std::string& value) {
        const auto there = parse_endpoint(value);
        out.push_back(there.value_or(Endpoint()));
        return there ? ""
                     : "an address and a port, as \"192.0.2.1:7790\" or \"[2001:db8::1]:7790\"";
    });
    if (out.empty()) {
        parsed_.complain(node_of(found).source(),
                         std::string(key) + " must be a list: [\"[::]:7790\"]");
    }
}

void SettingsFile::Section::complain(const std::string& what) {
    if (table_ != nullptr) {
        parsed_.complain(static_cast<const toml::table*>(table_)->source(), what);
    }
}

// ---- The file ----

SettingsFile::SettingsFile(std::unique_ptr<Parsed> parsed) : parsed_(std::move(parsed)) {}
SettingsFile::SettingsFile(SettingsFile&& other) noexcept = default;
SettingsFile& SettingsFile::operator=(SettingsFile&& other) noexcept = default;
SettingsFile::~SettingsFile() = default;

Result<SettingsFile> SettingsFile::parse(std::string_view text, std::string name) {
    auto parsed = toml::parse(text, name);
    if (!parsed) {
        const auto& error = parsed.error();
        return make_error(EBADMSG, name + ":" + std::to_string(error.source().begin.line) + ": " +
                                       std::string(error.description()));
    }
    auto made = std::make_unique<Parsed>();
    made->root = std::move(parsed).table();
    made->name = std::move(name);
    return SettingsFile(std::move(made));
}

SettingsFile::Section SettingsFile::section(const char* name) {
    return {*parsed_, parsed_->root[name].as_table()};
}

void SettingsFile::each(const char* name, const std::function<void(Section&)>& take) {
    const auto* node = parsed_->root.get(name);
    const auto* list = node != nullptr ? node->as_array() : nullptr;
    if (node != nullptr && (list == nullptr || !list->is_array_of_tables())) {
        return parsed_->complain(node->source(),
                                 std::string(name) + " must be sections: [[" + name + "]]");
    }
    for (std::size_t i = 0; list != nullptr && i < list->size(); i++) {
        Section section(*parsed_, (*list)[i].as_table());
        take(section);
    }
}

Result<void> SettingsFile::result() const {
    auto& parsed = *parsed_;
    const auto known = [&parsed](const std::string& section, const toml::table& table) {
        for (const auto& [key, value] : table) {
            if (!parsed.asked.contains(&value)) {
                parsed.complain(value.source(),
                                "there is no setting \"" + std::string(key) + "\" in " + section);
            }
        }
    };
    for (const auto& [key, node] : parsed.root) {
        const std::string name(key);
        if (const auto* table = node.as_table()) {
            known("[" + name + "]", *table);
        } else if (const auto* list = node.as_array(); list && list->is_array_of_tables()) {
            list->for_each([&](const auto& one) {
                known("[[" + name + "]]", *static_cast<const toml::node&>(one).as_table());
            });
        } else {
            parsed.complain(node.source(), "\"" + name + "\" is no section");
        }
    }
    return parsed.wrong.empty() ? Result<void>() : make_error(EBADMSG, parsed.wrong);
}

}  // namespace mobility
