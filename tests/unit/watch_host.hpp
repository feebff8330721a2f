// SPDX-License-Identifier: GPL-2.0-or-later
// A host in words, for tests of watching: changes are lines as ip(8) takes them.
//
//     link NAME [kind K] [no-carrier | down | gone] [prefers-temporary]
//     addr [del] IP/LEN dev NAME [tentative | failed | deprecated | temporary | secondary |
//     link]... route [del | replace] PREFIX [via IP] [dev NAME] [metric N] [table N] [src IP]
//           [from PREFIX] [pref high | pref low] [unreachable | throw]
//     rule [del] [family 6] [prio N] [not] [marked] [from PREFIX] [to PREFIX]
//          (lookup N | goto N | refuse) [suppress N]
//     ignore-linkdown NAME | all
//
// PREFIX: default, default6, IP, or IP/LEN. An address brings its subnet's route along, as in
// the kernel. `#` begins a comment.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <sstream>
#include <string>

#include "watch/decide.hpp"

namespace mobility::watch {

inline Address ip(const std::string& text) {
    const auto address = Address::parse(text);
    EXPECT_TRUE(address) << text;
    return address ? *address : Address();
}

inline Prefix prefix(const std::string& text) {
    if (text == "default" || text == "default6") {
        return {};
    }
    const auto slash = text.find('/');
    const auto address = ip(text.substr(0, slash));
    const int whole = address.is_v6() ? 128 : 32;
    const int length = slash == text.npos ? whole : std::stoi(text.substr(slash + 1));
    std::vector<std::byte> bytes(address.bytes().begin(), address.bytes().end());
    for (std::size_t bit = static_cast<std::size_t>(length); bit < bytes.size() * 8; bit++) {
        bytes[bit / 8] &= ~(std::byte{0x80} >> (bit % 8));
    }
    return {*Address::from_bytes(bytes), static_cast<std::uint8_t>(length)};
}

class TestHost {
  public:
    HostState state;
    bool sure = true;  ///< until a change was not

    /// With the kernel's own rules.
    TestHost() {
        for (const auto* family : {"4", "6"}) {
            does(std::string("rule prio 0 lookup 255 family ") + family);
            does(std::string("rule prio 32766 lookup 254 family ") + family);
        }
    }

    /// Applies lines, separated by newlines or semicolons.
    TestHost& does(std::string lines) {
        std::ranges::replace(lines, ';', '\n');
        std::istringstream in(lines);
        for (std::string line; std::getline(in, line);) {
            std::istringstream words(line.substr(0, line.find('#')));
            std::string verb;
            if (words >> verb) {
                apply(verb, words);
            }
        }
        return *this;
    }

    /// Interfaces get an index when they are named first.
    unsigned index(const std::string& name) {
        return indices_.try_emplace(name, static_cast<unsigned>(indices_.size() + 1)).first->second;
    }

  private:
    using How = Change::How;

    void apply(const std::string& verb, std::istringstream& words) {
        if (verb == "link") {
            link(words);
        } else if (verb == "addr") {
            address(words);
        } else if (verb == "route") {
            route(words);
        } else if (verb == "rule") {
            rule(words);
        } else if (verb == "ignore-linkdown") {
            std::string name;
            words >> name;
            set(How::Set, Linkdown{.index = name == "all" ? 0 : index(name), .ignores = true});
        } else {
            ADD_FAILURE() << "what is '" << verb << "'?";
        }
    }

    template <typename What>
    void set(How how, const What& what) {
        sure = state.apply({how, what}) && sure;
    }

    void link(std::istringstream& words) {
        Link link{.up = true, .running = true};
        How how = How::Set;
        words >> link.name;
        link.index = index(link.name);
        for (std::string word; words >> word;) {
            if (word == "kind") {
                words >> link.kind;
            } else if (word == "prefers-temporary") {
                link.prefers_temporary = true;
            } else if (word == "gone") {
                how = How::Remove;
            } else {
                EXPECT_TRUE(word == "no-carrier" || word == "down") << word;
                link.running = false;
                link.up = word != "down";
            }
        }
        set(how, link);
    }

    void address(std::istringstream& words) {
        HostAddress address;
        How how = How::Set;
        std::string dev;
        for (std::string word; words >> word;) {
            if (word == "del") {
                how = How::Remove;
            } else if (word == "dev") {
                words >> dev;
            } else if (word.find('/') != word.npos) {
                address.ip = ip(word.substr(0, word.find('/')));
                address.length = prefix(word).length;
            } else {
                flag(address, word);
            }
        }
        address.index = index(dev);
        set(how, address);
        const auto net = prefix(address.ip.to_string() + "/" + std::to_string(address.length));
        Route route{.v6 = address.ip.is_v6(), .to = net};
        route.index = address.index;
        route.metric = route.v6 ? 256 : 0;
        if (!route.v6) {
            route.source = address.ip;
        }
        if (!address.secondary) {
            set(how, route);
        }
    }

    static void flag(HostAddress& address, const std::string& word) {
        const std::map<std::string, bool HostAddress::*> flags{
            {"tentative", &HostAddress::tentative},   {"failed", &HostAddress::failed},
            {"deprecated", &HostAddress::deprecated}, {"temporary", &HostAddress::temporary},
            {"secondary", &HostAddress::secondary},   {"link", &HostAddress::confined}};
        address.*flags.at(word) = true;
    }

    void route(std::istringstream& words) {
        Route route;
        How how = How::Set;
        for (std::string word, next; words >> word;) {
            if (word == "del" || word == "replace") {
                how = word == "del" ? How::Remove : How::Replace;
            } else if (word == "unreachable" || word == "throw") {
                route.kind = word == "throw" ? Route::Kind::Throw : Route::Kind::Blocked;
            } else if (word.starts_with("default") || word.find_first_of(".:") != word.npos) {
                route.to = prefix(word);
                route.v6 = word == "default6" || word.find(':') != word.npos;
            } else if (words >> next) {
                option(route, word, next);
            }
        }
        set(how, route);
    }

    void option(Route& route, const std::string& word, const std::string& value) {
        if (word == "via") {
            route.gateway = ip(value);
        } else if (word == "dev") {
            route.index = index(value);
        } else if (word == "metric") {
            route.metric = static_cast<std::uint32_t>(std::stoul(value));
        } else if (word == "table") {
            route.table = static_cast<std::uint32_t>(std::stoul(value));
        } else if (word == "src") {
            route.source = ip(value);
        } else if (word == "from") {
            route.from = prefix(value);
        } else if (word == "pref") {
            route.preference = value == "high" ? 1 : -1;
        } else {
            ADD_FAILURE() << "what is '" << word << "' of a route?";
        }
    }

    void rule(std::istringstream& words) {
        Rule rule{.priority = 1000};
        How how = How::Set;
        for (std::string word, next; words >> word;) {
            if (word == "del") {
                how = How::Remove;
            } else if (word == "not") {
                rule.inverted = true;
            } else if (word == "marked") {
                rule.fits = false;
            } else if (word == "refuse") {
                rule.action = Rule::Action::Refuse;
            } else if (words >> next) {
                option(rule, word, next);
            }
        }
        set(how, rule);
    }

    static void option(Rule& rule, const std::string& word, const std::string& value) {
        if (word == "from" || word == "to") {
            (word == "from" ? rule.from : rule.to) = prefix(value);
            rule.v6 = value.find(':') != value.npos;
        } else if (word == "family") {
            rule.v6 = value == "6";
        } else if (word == "prio") {
            rule.priority = static_cast<std::uint32_t>(std::stoul(value));
        } else if (word == "lookup") {
            rule.table = static_cast<std::uint32_t>(std::stoul(value));
        } else if (word == "suppress") {
            rule.suppress = std::stoi(value);
        } else if (word == "goto") {
            rule.action = Rule::Action::Goto;
            rule.target = static_cast<std::uint32_t>(std::stoul(value));
        } else {
            ADD_FAILURE() << "what is '" << word << "' of a rule?";
        }
    }

    std::map<std::string, unsigned> indices_;
};

}  // namespace mobility::watch
