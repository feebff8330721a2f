// SPDX-License-Identifier: GPL-2.0-or-later
// A directory for a test's files, gone with it.
#pragma once

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>

namespace mobility {

class Temporary {
  public:
    Temporary() {
        std::string name = std::filesystem::temp_directory_path() / "mobility-test-XXXXXX";
        path_ = ::mkdtemp(name.data());
    }
    Temporary(const Temporary&) = delete;
    Temporary& operator=(const Temporary&) = delete;
    ~Temporary() {
        std::error_code ignored;
        std::filesystem::remove_all(path_, ignored);
    }

    [[nodiscard]] const std::filesystem::path& path() const { return path_; }
    [[nodiscard]] std::filesystem::path at(const std::string& name) const { return path_ / name; }

    /// Writes a file, for its owner alone, and makes the directories on the way to it.
    void write(const std::string& name, const std::string& text) const {
        std::filesystem::create_directories(at(name).parent_path());
        std::ofstream(at(name)) << text;
        std::filesystem::permissions(
            at(name), std::filesystem::perms::owner_read | std::filesystem::perms::owner_write);
    }
    [[nodiscard]] std::string read(const std::string& name) const {
        std::ifstream in(at(name));
        return {std::istreambuf_iterator<char>(in), {}};
    }

  private:
    std::filesystem::path path_;
};

}  // namespace mobility
