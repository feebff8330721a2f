// SPDX-License-Identifier: GPL-2.0-or-later
// Writes the seed corpus of decode_fuzzer: one good message of every kind, as
// the kernel would send it. Usage: make_corpus DIRECTORY

#include <filesystem>
#include <fstream>
#include <iostream>

#include "fake_kernel.hpp"

namespace {

using fake::Bytes;

std::filesystem::path g_directory;

void save(const char* name, const Bytes& bytes) {
    std::ofstream file(g_directory / name, std::ios::binary);
    file.write(reinterpret_cast<const char*>(bytes.data()),
               static_cast<std::streamsize>(bytes.size()));
}

fake::Connection rich(bool v6) {
    auto conn = fake::sample();
    if (v6) {
        conn.local = *fake::Endpoint::parse("[2001:db8::1]:5000");
        conn.remote = *fake::Endpoint::parse("[2001:db8::2]:80");
    }
    conn.peer_inner = fake::PeerInner{{std::byte{10}, {}, {}, std::byte{9}}, 6000};
    conn.token_local = 1;
    conn.token_remote = 2;
    conn.new_local = *fake::Target::parse(v6 ? "[2001:db8::3]:7" : "192.0.2.3:7");
    conn.uid = 0;
    conn.inode = 1;
    conn.left_ms = 1;
    conn.error = 104;
    return conn;
}

}  // namespace

int main(int argc, char** argv) {
    if (argc != 2) {
        std::cerr << "usage: make_corpus DIRECTORY\n";
        return 2;
    }
    g_directory = argv[1];
    std::filesystem::create_directories(g_directory);
    save("connection4", fake::make_connection_message(TCP_MIGRATE_CMD_GET, rich(false)));
    save("connection6", fake::make_connection_message(TCP_MIGRATE_CMD_GET, rich(true)));
    save("event", fake::make_connection_message(TCP_MIGRATE_CMD_EVENT, rich(false)));
    save("ack", fake::make_error_message(0));
    save("error", fake::make_error_message(EBUSY, "a trial is under way"));
    auto dump = fake::make_connection_message(TCP_MIGRATE_CMD_GET, fake::sample());
    const auto done = fake::make_done_message();
    dump.insert(dump.end(), done.begin(), done.end());
    save("dump", dump);
    save("migrate_all", fake::make_message(TCP_MIGRATE_CMD_MIGRATE_ALL, [](nl_msg* msg) {
             nla_put_u32(msg, TCP_MIGRATE_A_CONN_COUNT, 3);
             nla_put_u32(msg, TCP_MIGRATE_A_CONN_FAILED, 1);
             nla_put_u32(msg, TCP_MIGRATE_A_CONN_ERROR, EADDRINUSE);
         }));
    save("export", fake::make_message(TCP_MIGRATE_CMD_EXPORT, [](nl_msg* msg) {
             const Bytes value(32, std::byte{7});
             nla_put_u64(msg, TCP_MIGRATE_A_CONN_COOKIE, 17);
             nla_put(msg, TCP_MIGRATE_A_CONN_EXPORTER, 32, value.data());
         }));
    return 0;
}
