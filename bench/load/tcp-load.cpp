// SPDX-License-Identifier: GPL-2.0-or-later
// tcp-load: TCP work between two network namespaces, and how fast it went.
//
//   tcp-load MODE SERVER-NS CLIENT-NS ADDRESS PORT SLICES AMOUNT [insn] [mptcp]
//
//   rr       one connection; a request of 64 bytes, an answer of 64 bytes
//   bulk     one connection; 64 KiB writes, one way
//   connect  connection, request, answer, close; the server closes first
//
// One thread plays both ends, so that nothing is measured but the kernel's work
// on the segments: no process switch, no sleep. The work is cut into SLICES;
// a slice lasts AMOUNT microseconds, or with "insn" has AMOUNT operations. A
// line per slice is printed: operations (bulk: bytes), and the nanoseconds, or
// with "insn" the ticks of the time-stamp counter, that they took; under
// QEMU's -icount shift=0 a tick is one instruction. With "mptcp" the sockets are
// MPTCP's.

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <sys/socket.h>
#include <x86intrin.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <iostream>
#include <stdexcept>
#include <string>
#include <string_view>
#include <system_error>
#include <vector>

#include "unique_fd.hpp"

namespace {

using ctl::UniqueFd;

constexpr size_t kMessage = 64;
constexpr size_t kChunk = 65536;

[[noreturn]] void fail(const std::string& what) {
    throw std::system_error(errno, std::generic_category(), what);
}

// The calling thread is in this namespace from now on.
void enter(const std::string& name) {
    const std::string path = "/run/netns/" + name;
    UniqueFd ns(open(path.c_str(), O_RDONLY | O_CLOEXEC));
    if (!ns || setns(ns.get(), CLONE_NEWNET) < 0)
        fail(path);
}

struct Work {
    std::string mode;
    std::string server_ns;
    std::string client_ns;
    sockaddr_in address{};
    int slices = 0;
    uint64_t amount = 0;
    bool instructions = false;
    int protocol = IPPROTO_TCP;
};

void set(int fd, int level, int option, int value) {
    if (setsockopt(fd, level, option, &value, sizeof(value)) < 0)
        fail("setsockopt");
}

UniqueFd new_socket(const Work& work) {
    UniqueFd fd(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, work.protocol));
    if (!fd)
        fail("socket");
    return fd;
}

UniqueFd listen_on(const Work& work) {
    enter(work.server_ns);
    UniqueFd fd = new_socket(work);
    set(fd.get(), SOL_SOCKET, SO_REUSEADDR, 1);
    // What is in the middle may send on to an address of its own choice.
    auto any = work.address;
    any.sin_addr.s_addr = htonl(INADDR_ANY);
    const auto* address = reinterpret_cast<const sockaddr*>(&any);
    if (bind(fd.get(), address, sizeof(any)) < 0 || listen(fd.get(), 128) < 0)
        fail("listen");
    enter(work.client_ns);
    return fd;
}

struct Pair {
    UniqueFd client;
    UniqueFd server;
};

// connect() needs nobody to call accept().
Pair join(const Work& work, const UniqueFd& listener) {
    Pair pair{new_socket(work), {}};
    const auto* address = reinterpret_cast<const sockaddr*>(&work.address);
    if (connect(pair.client.get(), address, sizeof(work.address)) < 0)
        fail("connect");
    pair.server = UniqueFd(accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC));
    if (!pair.server)
        fail("accept");
    for (const auto* end : {&pair.client, &pair.server})
        set(end->get(), IPPROTO_TCP, TCP_NODELAY, 1);
    return pair;
}

void pass(const UniqueFd& from, const UniqueFd& to) {
    std::array<char, kMessage> buffer{};
    if (send(from.get(), buffer.data(), buffer.size(), MSG_NOSIGNAL) != ssize_t{kMessage})
        fail("send");
    if (recv(to.get(), buffer.data(), buffer.size(), MSG_WAITALL) != ssize_t{kMessage})
        fail("recv");
}

uint64_t exchange(const Pair& pair) {
    pass(pair.client, pair.server);
    pass(pair.server, pair.client);
    return 1;
}

uint64_t one_connection(const Work& work, const UniqueFd& listener) {
    Pair pair = join(work, listener);
    exchange(pair);
    pair.server.reset();
    char end = 0;
    if (recv(pair.client.get(), &end, 1, 0) != 0)
        fail("close");
    return 1;
}

// Writes what fits, reads what is there; returns the bytes read.
uint64_t move_bytes(const Pair& pair, std::vector<char>& buffer) {
    while (send(pair.client.get(), buffer.data(), buffer.size(), MSG_DONTWAIT | MSG_NOSIGNAL) > 0) {
    }
    if (errno != EAGAIN)
        fail("send");
    uint64_t sum = 0;
    ssize_t got = 0;
    while ((got = recv(pair.server.get(), buffer.data(), buffer.size(), MSG_DONTWAIT)) > 0)
        sum += static_cast<uint64_t>(got);
    if (got == 0 || errno != EAGAIN)
        fail("recv");
    return sum;
}

uint64_t clock_now(bool ticks) {
    if (ticks)
        return __rdtsc();
    const auto now = std::chrono::steady_clock::now().time_since_epoch();
    return static_cast<uint64_t>(std::chrono::nanoseconds(now).count());
}

// One slice; step() does one operation and returns what it counts for.
template <typename Step>
void slice(const Work& work, bool shown, Step step) {
    const uint64_t began = clock_now(work.instructions);
    const uint64_t limit = work.instructions ? work.amount : work.amount * 1000;
    uint64_t steps = 0;
    uint64_t count = 0;
    uint64_t took = 0;
    do {
        count += step();
        steps++;
        took = clock_now(work.instructions) - began;
    } while ((work.instructions ? steps : took) < limit);
    if (shown)
        std::cout << count << ' ' << took << '\n';
}

// A slice that is not shown comes first: slow start, caches, page faults.
template <typename Step>
void run(const Work& work, Step step) {
    for (int i = -1; i < work.slices; i++)
        slice(work, i >= 0, step);
}

void run(const Work& work) {
    const UniqueFd listener = listen_on(work);
    if (work.mode == "connect") {
        run(work, [&] { return one_connection(work, listener); });
        return;
    }
    const Pair pair = join(work, listener);
    if (work.mode == "rr") {
        run(work, [&] { return exchange(pair); });
    } else {
        std::vector<char> buffer(kChunk);
        run(work, [&] { return move_bytes(pair, buffer); });
    }
}

Work parse(const std::vector<std::string>& args) {
    const auto known = [&] { return args[0] == "rr" || args[0] == "bulk" || args[0] == "connect"; };
    if (args.size() < 7 || args.size() > 9 || !known())
        throw std::invalid_argument(
            "usage: tcp-load rr|bulk|connect SERVER-NS CLIENT-NS ADDRESS PORT SLICES AMOUNT "
            "[insn] [mptcp]");
    Work work{args[0], args[1], args[2], {}, std::stoi(args[5]), std::stoull(args[6])};
    const std::vector<std::string> words(args.begin() + 7, args.end());
    work.instructions = std::ranges::find(words, "insn") != words.end();
    if (std::ranges::find(words, "mptcp") != words.end())
        work.protocol = IPPROTO_MPTCP;
    work.address.sin_family = AF_INET;
    work.address.sin_port = htons(static_cast<uint16_t>(std::stoi(args[4])));
    if (inet_pton(AF_INET, args[3].c_str(), &work.address.sin_addr) != 1)
        throw std::invalid_argument("no IPv4 address: " + args[3]);
    return work;
}

}  // namespace

int main(int argc, char** argv) {
    try {
        run(parse({argv + 1, argv + argc}));
        return EXIT_SUCCESS;
    } catch (const std::exception& error) {
        std::cerr << "tcp-load: " << error.what() << '\n';
        return EXIT_FAILURE;
    }
}
