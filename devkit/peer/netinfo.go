// The verb netinfo: what a container sees of its network, and what it may do to it.
package main

import (
	"context"
	"encoding/hex"
	"flag"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
)

type netinfo struct {
	Addresses    []string `json:"addresses"` // address/prefix length, without loopback and IPv6 link-local
	Routes       routes   `json:"routes"`
	ResolvConf   string   `json:"resolv_conf"`
	Capabilities uint64   `json:"capabilities"` // effective ones, a bit for each, as in linux/capability.h
}

type routes struct {
	Default bool    `json:"default"`
	Gateway *string `json:"gateway"`
}

func declareNetinfo(*flag.FlagSet) action {
	return func(_ context.Context, positional []string, out *printer) (bool, error) {
		if err := noArguments(positional); err != nil {
			return false, err
		}
		addresses, err := addresses()
		if err != nil {
			return false, err
		}
		table, err := os.ReadFile("/proc/net/route")
		if err != nil {
			return false, err
		}
		routes, err := parseRoutes(string(table))
		if err != nil {
			return false, err
		}
		resolvConf, err := os.ReadFile(resolvConf)
		if err != nil && !os.IsNotExist(err) {
			return false, err
		}
		status, err := os.ReadFile("/proc/self/status")
		if err != nil {
			return false, err
		}
		capabilities, err := parseCapabilities(string(status))
		if err != nil {
			return false, err
		}
		out.print(netinfo{addresses, routes, string(resolvConf), capabilities})
		return true, nil
	}
}

func addresses() ([]string, error) {
	all, err := net.InterfaceAddrs()
	if err != nil {
		return nil, err
	}
	kept := []string{}
	for _, one := range all {
		prefix, err := netip.ParsePrefix(one.String())
		if err != nil {
			return nil, err
		}
		address := prefix.Addr()
		if address.IsLoopback() || address.Is6() && address.IsLinkLocalUnicast() {
			continue
		}
		kept = append(kept, prefix.String())
	}
	return kept, nil
}

// parseCapabilities finds the effective capabilities in the text of /proc/PID/status.
func parseCapabilities(status string) (uint64, error) {
	_, rest, found := strings.Cut(status, "\nCapEff:")
	if !found {
		return 0, fmt.Errorf("no CapEff in /proc/self/status")
	}
	digits, _, _ := strings.Cut(rest, "\n")
	return strconv.ParseUint(strings.TrimSpace(digits), 16, 64)
}

// rejecting is RTF_REJECT of linux/route.h: a route that refuses, such as "unreachable default".
const rejecting = 0x200

// parseRoutes finds the default route in the text of /proc/net/route, a line per route of interface, destination,
// gateway, flags, four numbers, mask. Addresses are hexadecimal in the byte order of the machine, which is
// little-endian wherever this is built for.
func parseRoutes(table string) (routes, error) {
	for _, line := range strings.Split(table, "\n") {
		fields := strings.Fields(line)
		if len(fields) < 8 || fields[1] != "00000000" || fields[7] != "00000000" {
			continue
		}
		if flags, err := strconv.ParseUint(fields[3], 16, 16); err != nil || flags&rejecting != 0 {
			continue
		}
		octets, err := hex.DecodeString(fields[2])
		if err != nil || len(octets) != 4 {
			return routes{}, fmt.Errorf("gateway %q in /proc/net/route isn't 8 hexadecimal digits", fields[2])
		}
		gateway := netip.AddrFrom4([4]byte{octets[3], octets[2], octets[1], octets[0]}).String()
		return routes{Default: true, Gateway: &gateway}, nil
	}
	return routes{}, nil
}
