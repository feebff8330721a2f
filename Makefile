# SPDX-License-Identifier: GPL-2.0-or-later
#
# Builds and tests everything; `make help` lists the targets. All that is made
# is in build/. Kernels are built out of tree from build/src, into which
# kernel-patches/prepare.sh puts Debian's source, the series, and the new files.

SHELL := /bin/bash
.DEFAULT_GOAL := all
# Two kernels at once are no faster than one after the other with all CPUs.
.NOTPARALLEL:
JOBS ?= $(shell nproc)
B := build
P := kernel-patches
export CCACHE_DIR ?= $(HOME)/.cache/ccache
CC_K := $(if $(shell command -v ccache),ccache gcc,gcc)
KMAKE = $(MAKE) -s --no-print-directory -j$(JOBS) CC="$(CC_K)" HOSTCC="$(CC_K)" \
	KBUILD_BUILD_TIMESTAMP=@0 KBUILD_BUILD_USER=lab KBUILD_BUILD_HOST=lab

NEW := $(shell find net-tcp-migrate/kernel -type f 2>/dev/null)
PATCHES := $(shell find $(P)/6.12 -name '*.patch' -o -name series)
CONFIGS := $(wildcard $(P)/6.12/config/*.config)

.PHONY: all
all: kernels vanilla tools ## everything that is built

.PHONY: help
help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' Makefile | expand -t 16

.PHONY: deps
deps: ## install the Debian packages everything needs
	@netns-lab/install-deps.sh

# ---- kernels ----

$(B)/src/linux.stamp: $(P)/prepare.sh $(PATCHES) $(NEW)
	$(P)/prepare.sh $(B)/src/linux
	@touch $@

$(B)/src/linux-vanilla.stamp: $(P)/prepare.sh $(wildcard $(P)/6.12/lab/*)
	$(P)/prepare.sh --vanilla $(B)/src/linux-vanilla
	@touch $@

# kernel NAME, ARCH, tree, image in the build directory, fragments: a build
# directory build/NAME, whose image is the product.
define kernel
$(B)/$(1)/.config: $(P)/configure.sh $(CONFIGS) | $(B)/src/$(3).stamp
	$(P)/configure.sh $(2) $(B)/src/$(3) $(B)/$(1) $(5)
	@touch $$@
$(B)/$(1)/$(notdir $(4)): $(B)/src/$(3).stamp $(B)/$(1)/.config
	+$$(KMAKE) $$(KFLAGS) -C $(B)/src/$(3) O=$(abspath $(B)/$(1)) ARCH=$(2) $(notdir $(4))
	@[ $(4) = $(notdir $(4)) ] || cp -f $(B)/$(1)/$(4) $$@
	@touch $$@
endef
$(eval $(call kernel,uml,um,linux,linux,lab uml tcp-migrate kunit debug))
$(eval $(call kernel,uml-plain,um,linux,linux,lab uml tcp-migrate kunit))
$(eval $(call kernel,uml-vanilla,um,linux-vanilla,linux,lab uml))
$(eval $(call kernel,qemu-smp,x86_64,linux,arch/x86/boot/bzImage,lab qemu-smp tcp-migrate kunit debug-smp))
$(eval $(call kernel,qemu,x86_64,linux,arch/x86/boot/bzImage,lab qemu-smp bench tcp-migrate kunit))
$(eval $(call kernel,qemu-vanilla,x86_64,linux-vanilla,arch/x86/boot/bzImage,lab qemu-smp bench))

# On emulated CPUs KASAN looks at what TCP does, there and in what it calls for
# sockets and segments; all that is freed is poisoned all the same.
$(B)/qemu-smp/bzImage: KFLAGS = KASAN_SANITIZE=n $(patsubst %.c,KASAN_SANITIZE_%.o=y,$(notdir $(wildcard \
	$(addprefix $(B)/src/linux/net/,ipv4/tcp*.c ipv4/inet*.c ipv6/tcp*.c ipv6/inet6*.c core/sock*.c core/skbuff.c))))

.PHONY: kernels uml uml-plain qemu-smp qemu qemu-vanilla vanilla
kernels: uml uml-plain qemu-smp ## patched kernels: UML debug, UML plain, QEMU SMP
uml: $(B)/uml/linux ## patched UML kernel with all checkers on
uml-plain: $(B)/uml-plain/linux ## patched UML kernel without checkers
qemu-smp: $(B)/qemu-smp/bzImage ## patched kernel for QEMU with several CPUs
qemu: $(B)/qemu/bzImage ## patched kernel for QEMU without checkers, to be measured
qemu-vanilla: $(B)/qemu-vanilla/bzImage ## unpatched kernel of the same configuration
vanilla: $(B)/uml-vanilla/linux ## unpatched UML kernel of the same configuration

# ---- Debian packages ----

# Debian's own configurations: amd64 for any machine, cloud-amd64 for virtual ones.
FLAVOUR ?= amd64
# DEBUG_INFO=1: debug information, and BTF of it.
DEBUG_INFO ?=
KDEB := $(B)/deb/$(FLAVOUR)$(if $(DEBUG_INFO),-debug)

$(KDEB)/.config: $(P)/configure.sh $(CONFIGS) | $(B)/src/linux.stamp
	$(P)/configure.sh --from /usr/src/linux-config-6.12/config.amd64_none_$(FLAVOUR).xz \
		x86_64 $(B)/src/linux $(KDEB) tcp-migrate debian$(if $(DEBUG_INFO),-debug)
	@touch $@

# Kbuild leaves packages beside its directory. Headers for user space would replace Debian's
# own; what is left of an earlier build goes. No ccache: the configuration that is installed
# names the compiler.
$(KDEB).stamp: $(B)/src/linux.stamp $(KDEB)/.config
	rm -f $(foreach end,_ -dbg_,$(B)/deb/linux-*-tcp-migrate-$(notdir $(KDEB))$(end)*.deb)
	+$(MAKE) -s --no-print-directory -j$(JOBS) KDEB_CHANGELOG_DIST=bookworm LOCALVERSION=-tcp-migrate-$(notdir $(KDEB)) \
		-C $(B)/src/linux O=$(abspath $(KDEB)) ARCH=x86_64 bindeb-pkg
	rm -f $(B)/deb/linux-libc-dev_* $(B)/deb/linux-upstream_*
	@touch $@

.PHONY: kernel-deb kernel-deb-deps
kernel-deb-deps:
	@netns-lab/install-deps.sh kernel-deb $(if $(DEBUG_INFO),debug-info)
kernel-deb: kernel-deb-deps $(KDEB).stamp ## Debian packages of the kernel in build/deb; FLAVOUR=amd64 or cloud-amd64

# ---- user space ----

.PHONY: tools
# What there is to do CMake knows best; if nothing, this takes a second.
tools: ## migrate-ctl, the daemons and the unit tests
	@cmake -S . -B $(B)/cmake -DCMAKE_BUILD_TYPE=RelWithDebInfo >/dev/null
	@cmake --build $(B)/cmake -j $(JOBS)

.PHONY: deb deb-deps
deb-deps:
	@netns-lab/install-deps.sh deb
deb: deb-deps tools ## Debian packages of the programs in build/deb
	rm -rf $(B)/deb/tools $(addprefix $(B)/deb/,migrate-ctl_* mobility-*.deb sym-proxy_*)
	mkdir -p $(B)/deb/tools && cp -a debian docs $(B)/deb/tools/
	cd $(B)/deb/tools && debian/rules binary BUILD=$(abspath $(B)/cmake) DEST=$(abspath $(B)/deb) \
		COMMITS=$(shell git rev-list --count HEAD 2>/dev/null) >dh.log 2>&1 || { cat dh.log; exit 1; }

# ---- tests ----

.PHONY: test test-long demo bench lint clean
test: deps tools uml-plain uml qemu-smp $(B)/src/linux-vanilla.stamp ## all tests but the long ones
	tests/run
test-long: deps tools kernels vanilla deb ## all tests
	$(MAKE) --no-print-directory kernel-deb FLAVOUR=cloud-amd64
	tests/run --long
demo: deps uml-plain tools ## a download that survives a move, with its picture
	netns-lab/demo
bench: deps tools uml-plain vanilla qemu qemu-vanilla ## what it costs, how fast it is: build/bench/results.json
	bench/run
lint: ## style and static checks of everything
	tests/lint
clean: ## remove everything that was built
	rm -rf $(B)
