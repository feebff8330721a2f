// SPDX-License-Identifier: GPL-2.0-or-later
// migrate-ctl: the command line of tcp-migrate; see migrate-ctl(1). The work is
// done in the files beside this one, on a System that tests replace.

#include <exception>
#include <iostream>

#include "commands.hpp"

int main(int argc, char** argv) {
    try {
        auto system = ctl::real_system();
        system.ask_daemon = [&system](const std::string& line) {
            return ctl::ask(system.control, line);
        };
        system.follow_daemon = [&system](const std::string& line, const auto& take) {
            return ctl::follow(system.control, line, take);
        };
        return ctl::run_cli(system, {argv + 1, argv + argc});
    } catch (const std::exception& error) {
        std::cerr << "migrate-ctl: " << error.what() << '\n';
        return ctl::kFailed;
    }
}
