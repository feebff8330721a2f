// SPDX-License-Identifier: GPL-2.0-or-later
// A daemon's configuration file, TOML: sections with settings, each of which has a
// default that the program gives. Whoever reads it asks for every setting that there is;
// the first that is wrong is remembered, with its line, and so is what nobody has asked
// for.
//
//     auto file = SettingsFile::parse(text, "file.toml");
//     auto limits = file->section("limits");
//     limits.number("channels", config.channels, 1, 1000);
//     if (const auto good = file->result(); !good) return good.error();
#pragma once

#include <boost/asio/ip/tcp.hpp>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "tcpmigrate/result.hpp"

namespace mobility {

/// "192.0.2.1:7790" or "[2001:db8::1]:7790"; nothing if it is neither.
std::optional<boost::asio::ip::tcp::endpoint> parse_endpoint(std::string_view text);
/// What parse_endpoint() reads.
std::string to_text(const boost::asio::ip::tcp::endpoint& endpoint);

/// The whole text of a file; with its errno, and named, if it cannot be read.
tcpmigrate::Result<std::string> read_text(const std::filesystem::path& file);

class SettingsFile {
    struct Parsed;

  public:
    using Endpoint = boost::asio::ip::tcp::endpoint;

    /// A part of the file. What it does not have stays as it is. Valid as long as the
    /// SettingsFile.
    class Section {
      public:
        /// Errors name the section and the bounds.
        void number(const char* key, std::size_t& out, std::int64_t least, std::int64_t most);
        void seconds(const char* key, std::chrono::steady_clock::duration& out,
                     std::int64_t least = 1, std::int64_t most = 86'400);
        void milliseconds(const char* key, std::chrono::steady_clock::duration& out,
                          std::int64_t least, std::int64_t most);
        void flag(const char* key, bool& out);
        void text(const char* key, std::string& out);
        void file(const char* key, std::filesystem::path& out);
        void one_of(const char* key, std::string& out, const std::vector<std::string>& allowed);
        void endpoint(const char* key, std::optional<Endpoint>& out);
        void endpoints(const char* key, std::vector<Endpoint>& out);
        /// As one text, which `take` finds wrong by saying what it must be.
        void parsed(const char* key,
                    const std::function<std::string(const std::string& value)>& take);
        /// A list of texts, each as parsed().
        void list(const char* key,
                  const std::function<std::string(const std::string& value)>& take);
        /// That something of this section as a whole cannot be.
        void complain(const std::string& what);

      private:
        friend class SettingsFile;
        Section(Parsed& parsed, const void* table) : parsed_(parsed), table_(table) {}
        const void* find(const char* key);

        Parsed& parsed_;
        const void* table_;  ///< a toml::table, null if there is none
    };

    /// EBADMSG, with file and line, if it is no TOML.
    static tcpmigrate::Result<SettingsFile> parse(std::string_view text, std::string name);
    SettingsFile(SettingsFile&& other) noexcept;
    SettingsFile& operator=(SettingsFile&& other) noexcept;
    ~SettingsFile();

    Section section(const char* name);
    /// Each of the sections that are written as [[name]], in their order.
    void each(const char* name, const std::function<void(Section&)>& take);

    /// EBADMSG, with file and line, if a setting was wrong, or nobody has asked for it.
    [[nodiscard]] tcpmigrate::Result<void> result() const;

  private:
    explicit SettingsFile(std::unique_ptr<Parsed> parsed);

    std::unique_ptr<Parsed> parsed_;
};

}  // namespace mobility
