package main

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
)

// Sibling is boot/sibling.json: which sibling this container is, and the network it needs.
type Sibling struct {
	Name       string            `json:"sibling"`
	Interfaces []Interface       `json:"interfaces"`
	Addresses  []Address         `json:"addresses"`
	Blocks     []netip.Prefix    `json:"blocks"` // further addresses of ours on the interface in whose subnet they are
	Tables     []Table           `json:"tables"`
	Service    *Address          `json:"service"`
	Resolver   *netip.Addr       `json:"resolver"`    // the engine's embedded resolver, the target of its NAT rules
	ResolvConf []string          `json:"resolv_conf"` // expected lines of the engine's /etc/resolv.conf
	Sysctls    map[string]string `json:"sysctls"`     // of the whole namespace; set by the engine
	Resources  []Resource        `json:"resources"`   // the hot files, in the order in which a commit places them
	Settings   map[string]int    `json:"settings"`    // of each interface (net.ipv4.conf.*); set by serve
	Limits     *Limits           `json:"limits"`      // of agents; set by serve
	Forwarder  *Forwarder        `json:"forwarder"`   // of lookups; started by serve
}

// around returns the subnet of the interface on which a block of addresses is, or the block itself if there is none.
func (s Sibling) around(block netip.Prefix) netip.Prefix {
	for _, each := range s.Interfaces {
		if each.Subnet.Contains(block.Addr()) {
			return each.Subnet
		}
	}
	return block
}

// Limits is what one agent, a source address in Subnet, can take of this sibling. Addresses in Except
// are not limited, and only they may connect to addresses in Private: for others these have closed ports. QueriesPerSecond is 0 if the sibling answers no queries, DatagramsPerSecond if it forwards none.
type Limits struct {
	Subnet               netip.Prefix `json:"subnet"`
	Except               []netip.Addr `json:"except"`
	Private              []netip.Addr `json:"private"`
	Connections          int          `json:"connections"`     // at once
	AllConnections       int          `json:"all_connections"` // at once, of all agents together
	ConnectionsPerSecond int          `json:"connections_per_second"`
	QueriesPerSecond     int          `json:"queries_per_second"`
	DatagramsPerSecond   int          `json:"datagrams_per_second"`
}

// Interface is a network interface provided by the engine: its address, its subnet, and its gateway if it has one.
type Interface struct {
	Address netip.Addr   `json:"address"`
	Subnet  netip.Prefix `json:"subnet"`
	Gateway *netip.Addr  `json:"gateway"`
}

// Address is an additional address that the engine does not assign, for the interface in Subnet.
type Address struct {
	Address netip.Addr   `json:"address"`
	Subnet  netip.Prefix `json:"subnet"`
}

// Table is the routing table for packets with the source address From. It has a default route via Gateway,
// unreachable routes for the Unreachable ranges, and a route to Subnet itself only if Connected.
type Table struct {
	Name        string         `json:"name"` // guarded or exempt
	From        netip.Addr     `json:"from"`
	ID          int            `json:"table"`
	Gateway     netip.Addr     `json:"gateway"`
	Subnet      netip.Prefix   `json:"subnet"`
	Connected   bool           `json:"connected"`
	Unreachable []netip.Prefix `json:"unreachable"`
}

func readSibling(root string) (Sibling, error) {
	var sibling Sibling
	path := filepath.Join(root, "boot", "sibling.json")
	text, err := os.ReadFile(path)
	if err != nil {
		return sibling, err
	}
	if err := json.Unmarshal(text, &sibling); err != nil {
		return sibling, fmt.Errorf("%s: %w", path, err)
	}
	if sibling.Name != "envoy" && sibling.Name != "coredns" {
		return sibling, fmt.Errorf("%s: unknown sibling %q", path, sibling.Name)
	}
	return sibling, nil
}

// Program is the interface to the serving process.
type Program interface {
	// Build returns the version string that the program reports.
	Build() (string, error)
	// Live maps each loaded resource to the digest of its loaded content.
	Live(resources []Resource) (map[string]string, error)
	// Evidence returns how Live has found what it returned, so that it need not be found again.
	Evidence() Evidence
	// Versions maps each resource with a versioned file to the version that the program accepted last.
	Versions(resources []Resource) (map[string]string, error)
	// Rejections counts the rejected updates since the program's start, by resource.
	Rejections(resources []Resource) (map[string]int, error)
	// Reason returns the program's explanation of its last rejection.
	Reason() string
	// Serves fails unless the program does what agents need: CoreDNS answers over each transport, Envoy looks names up.
	Serves() error
	// Connections returns the number of open connections from agents.
	Connections() (int, error)
	// Telemetry counts what became of the records of what the program has decided.
	Telemetry() (Telemetry, error)
	// Suppressed counts the refusals that came too fast to be written down, and that no line tells of.
	Suppressed() (Suppressed, error)
}

// Evidence is what is loaded in which state of the program, by resource. While the program is still in that state, the
// digest needs no reading: with thousands of rules, that takes Envoy half a second.
type Evidence map[string]Loaded

// Loaded is a state of the program, and the digest of what is loaded in it.
type Loaded struct {
	State  string `json:"state"`
	Digest string `json:"digest"`
}

// Telemetry counts the records since the program's start: those that a collector has taken, and those that it has not.
type Telemetry struct {
	Sent      uint64       `json:"sent"`
	Lost      uint64       `json:"lost"`
	Collector *Certificate `json:"collector,omitempty"` // from CoreDNS alone
}

// Certificate is what a collector has shown of itself at the last handshake. Times are in seconds since 1970.
type Certificate struct {
	Subject string   `json:"subject"`
	Names   []string `json:"names"`
	Begins  int64    `json:"begins"`
	Ends    int64    `json:"ends"`
	Digest  string   `json:"sha256"`
}

// Suppressed counts refusals since the program's start.
type Suppressed struct {
	Refusals uint64 `json:"refusals"`
}

// program returns the interface to the serving process, of which this much is known.
func (s Sibling) program(known Evidence) Program {
	if s.Name == "envoy" {
		return newEnvoy(adminSocket, known)
	}
	return coredns{folder: statusFolder, server: "127.0.0.1:53", resources: s.Resources}
}
