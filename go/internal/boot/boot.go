// Package boot reads boot/sibling.json, clawker-fw's description of a firewall container.
package boot

import (
	"fmt"
	"net/netip"
	"path/filepath"

	"clawker-fw/internal/volume"
)

// Sibling is boot/sibling.json: this container's role (`envoy` or `coredns`), network and helpers.
type Sibling struct {
	Name       string             `json:"sibling"`
	Interfaces []Interface        `json:"interfaces"`
	Addresses  []Address          `json:"addresses"`
	Blocks     []netip.Prefix     `json:"blocks"` // further own addresses, on the interface of their subnet
	Tables     []Table            `json:"tables"`
	Service    *Address           `json:"service"`
	Resolver   *netip.Addr        `json:"resolver"`    // Docker's embedded resolver, the target of its NAT rules
	ResolvConf []string           `json:"resolv_conf"` // expected lines of /etc/resolv.conf
	Sysctls    map[string]string  `json:"sysctls"`     // of the whole namespace; set by Docker
	Resources  []Resource         `json:"resources"`   // the dynamic files, in the order of a commit
	Settings   map[string]int     `json:"settings"`    // of each interface (net.ipv4.conf.*); set by serve
	Limits     *Limits            `json:"limits"`      // of agents; set by serve
	Apart      *Apart             `json:"-"`           // of a relay, which has no sibling.json
	Forwarder  *ForwarderSettings `json:"forwarder"`   // of lookups; started by serve
	Signer     *SignerSettings    `json:"signer"`      // of certificates; started by serve
	Page       *PageSettings      `json:"page"`        // about refusals; served by the recorder
	Usage      *UsageSettings     `json:"usage"`       // of rules by agents; recorded by the recorder
}

// Around returns the subnet of a block's interface, or the block itself if there is none.
func (s Sibling) Around(block netip.Prefix) netip.Prefix {
	for _, iface := range s.Interfaces {
		if iface.Subnet.Contains(block.Addr()) {
			return iface.Subnet
		}
	}
	return block
}

// Limits bounds the use of this container by one agent, a source address in Subnet. Addresses in Except have no
// limits, and only they may connect to addresses in Private, and to PrivatePort over TCP if it is set: for others
// these are closed. QueriesPerSecond is 0 without queries, DatagramsPerSecond without forwarded datagrams.
type Limits struct {
	Subnet               netip.Prefix `json:"subnet"`
	Except               []netip.Addr `json:"except"`
	Private              []netip.Addr `json:"private"`
	PrivatePort          uint16       `json:"private_port"`
	Connections          int          `json:"connections"`     // at once
	AllConnections       int          `json:"all_connections"` // at once, of all agents
	ConnectionsPerSecond int          `json:"connections_per_second"`
	QueriesPerSecond     int          `json:"queries_per_second"`
	DatagramsPerSecond   int          `json:"datagrams_per_second"`
}

// Apart has a relay's only peers: its agent, and the Docker host on the network for published ports.
type Apart struct{ Agent, Engine Pair }

// Pair is a network, and the only address in it that may exchange packets with the relay.
type Pair struct {
	Subnet netip.Prefix
	Only   netip.Addr
}

// Interface is a network interface from Docker, with its gateway if it has one.
type Interface struct {
	Address netip.Addr   `json:"address"`
	Subnet  netip.Prefix `json:"subnet"`
	Gateway *netip.Addr  `json:"gateway"`
}

// Address is an additional address, on the interface in Subnet, that Docker doesn't assign.
type Address struct {
	Address netip.Addr   `json:"address"`
	Subnet  netip.Prefix `json:"subnet"`
}

// Table is the routing table for the source address From: a default route via Gateway, unreachable routes for the
// Unreachable ranges, and a route to Subnet itself only if Connected.
type Table struct {
	Name        string         `json:"name"` // guarded, exempt, telemetry or proxied
	From        netip.Addr     `json:"from"`
	ID          int            `json:"table"`
	Gateway     netip.Addr     `json:"gateway"`
	Subnet      netip.Prefix   `json:"subnet"`
	Connected   bool           `json:"connected"`
	Unreachable []netip.Prefix `json:"unreachable"`
}

func Read(root string) (Sibling, error) {
	var sibling Sibling
	path := filepath.Join(root, "boot", "sibling.json")
	if err := volume.ReadJSON(path, &sibling); err != nil {
		return sibling, err
	}
	if sibling.Name != "envoy" && sibling.Name != "coredns" {
		return sibling, fmt.Errorf("%s: unknown sibling %q", path, sibling.Name)
	}
	return sibling, nil
}

// Resource is a dynamic file, and how to verify that the program has loaded it, as declared in boot/sibling.json.
//
// If Hashed, the program reports the SHA-256 of the loaded bytes; if Signer, the signer does. With Envoy, the
// digest is of Envoy's loaded configuration in canonical form. Without any of these, only fwctl reads the file,
// and it needs no proof.
type Resource struct {
	Name   string      `json:"name"`
	Path   string      `json:"path"` // below hot/
	Hashed bool        `json:"hashed,omitempty"`
	Signer bool        `json:"signer,omitempty"`
	Envoy  *EnvoyProof `json:"envoy,omitempty"`
	// Watched is the folder in which a rename makes the program reload the file, or "".
	Watched string `json:"watched,omitempty"`
}

// EnvoyProof locates a resource in Envoy's admin interface: the path At in each entry of
// `/config_dump?resource=Dump`, only in the entry Named if set, and the statistics with the prefix Statistics,
// with the version of the last accepted file. Dumps omit layers of the runtime, for which the text of the key
// Runtime counts.
type EnvoyProof struct {
	Dump       string   `json:"dump"`
	At         []string `json:"at"`
	Statistics string   `json:"statistics"`
	Runtime    string   `json:"runtime,omitempty"`
	Named      string   `json:"named,omitempty"`
}

// ForwarderSettings has the forwarder's own address, its upstream, and the networks of agents and of the way out.
type ForwarderSettings struct {
	Listen   netip.AddrPort `json:"listen"`
	Upstream netip.AddrPort `json:"upstream"`
	Agents   netip.Prefix   `json:"agents"`
	Egress   netip.Prefix   `json:"egress"`
}

// UsageSettings has our own addresses on the agent network, whose connections are no use by agents.
type UsageSettings struct {
	Except []netip.Addr `json:"except"`
}

// SignerSettings has the folder of the signer's sockets, created at start, and the image's file of CAs that Envoy
// trusts. Further CAs in the volume, if any, are appended to a copy at start.
type SignerSettings struct {
	Folder  string `json:"folder"`
	Trusted string `json:"trusted"`
	Further string `json:"further,omitempty"` // relative to the volume
	Joined  string `json:"joined,omitempty"`

	// Secrets are the ids in Envoy's table at its start. Envoy requests no other later.
	Secrets []string `json:"secrets,omitempty"`
}

// PageSettings describes the page about refusals. In Envoy's container it is served at Socket, created at start;
// the server asks CoreDNS's container at Other, from its address Own. There, Askers are answered at Listen.
type PageSettings struct {
	Socket string         `json:"socket,omitempty"`
	Own    netip.Addr     `json:"own,omitzero"`
	Other  netip.AddrPort `json:"other,omitzero"`
	Listen netip.AddrPort `json:"listen,omitzero"`
	Askers []netip.Addr   `json:"askers,omitempty"`
}
