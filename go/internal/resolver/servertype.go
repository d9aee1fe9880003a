// Package resolver has CoreDNS's server started by Caddy such that its connections over TCP can be watched. CoreDNS's own type of
// server has a place for that over UDP alone.
package resolver

import (
	"fmt"
	"net"

	"github.com/coredns/caddy"
	"github.com/coredns/caddy/caddyfile"
	"github.com/coredns/coredns/core/dnsserver"
	"github.com/coredns/coredns/plugin"
	"github.com/coredns/coredns/plugin/pkg/transport"
)

// ServerType is what Caddy knows this type of server by.
const ServerType = "resolver"

// directives are the plugins, in the order in which they handle a query.
var directives = []string{"otel", "policy"}

func init() {
	caddy.RegisterServerType(ServerType, caddy.ServerType{
		Directives: func() []string { return directives },
		NewContext: func(*caddy.Instance) caddy.Context { return new(zone) },
	})
}

// Register makes a plugin known that can be named in the Corefile.
func Register(name string, setup caddy.SetupFunc) {
	caddy.RegisterPlugin(name, caddy.Plugin{ServerType: ServerType, Action: setup})
}

// Config is what plugins set.
type Config struct {
	dnsserver.Config
	WatchTCP func(net.Listener) net.Listener // nil if nobody watches
}

// ConfigOf returns the settings that a plugin may change while it is set up.
func ConfigOf(controller *caddy.Controller) *Config { return &controller.Context().(*zone).config }

// zone is the only zone of a Corefile.
type zone struct{ config Config }

// InspectServerBlocks reads the zone and its port.
func (z *zone) InspectServerBlocks(path string, blocks []caddyfile.ServerBlock) ([]caddyfile.ServerBlock, error) {
	if len(blocks) != 1 || len(blocks[0].Keys) != 1 {
		return nil, fmt.Errorf("%s: expected exactly one zone", path)
	}
	names, port, err := plugin.SplitHostPort(blocks[0].Keys[0])
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if port == "" {
		port = transport.Port
	}
	z.config.Config = dnsserver.Config{Zone: plugin.Name(names[0]).Normalize(), Port: port, Transport: transport.DNS}
	return blocks, nil
}

// MakeServers returns the server, for all addresses.
func (z *zone) MakeServers() ([]caddy.Server, error) {
	made, err := dnsserver.NewServer(transport.DNS+"://:"+z.config.Port, []*dnsserver.Config{&z.config.Config})
	if err != nil {
		return nil, err
	}
	return []caddy.Server{server{made, z.config.WatchTCP}}, nil
}

// server is CoreDNS's, over UDP and TCP.
type server struct {
	*dnsserver.Server
	watchTCP func(net.Listener) net.Listener
}

// Serve answers over TCP until the listener is closed.
func (s server) Serve(listener net.Listener) error {
	if s.watchTCP != nil {
		listener = s.watchTCP(listener)
	}
	return s.Server.Serve(listener)
}
