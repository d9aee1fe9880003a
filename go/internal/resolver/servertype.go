// Package resolver is a Caddy server type that runs CoreDNS's server with watched TCP connections. CoreDNS's own
// server type can only watch UDP.
package resolver

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"time"

	"github.com/coredns/caddy"
	"github.com/coredns/caddy/caddyfile"
	"github.com/coredns/coredns/core/dnsserver"
	"github.com/coredns/coredns/plugin"
	"github.com/coredns/coredns/plugin/pkg/transport"
)

// ServerType is this server type's name in Caddy.
const ServerType = "resolver"

func init() {
	caddy.RegisterServerType(ServerType, caddy.ServerType{
		// The plugins, in the order of their setup: the second reports to the first.
		Directives: func() []string { return []string{"otel", "policy"} },
		NewContext: func(*caddy.Instance) caddy.Context { return new(zone) },
	})
}

func Register(name string, setup caddy.SetupFunc) {
	caddy.RegisterPlugin(name, caddy.Plugin{ServerType: ServerType, Action: setup})
}

type Config struct {
	dnsserver.Config
	WatchTCP func(net.Listener) net.Listener
	Report   func(Outcome) // nil without telemetry
}

// Outcome is the policy's decision on a query that this container did not send itself.
type Outcome struct {
	Client  netip.Addr
	Name    string
	Type    uint16
	Began   time.Time
	Took    time.Duration
	Reason  string // of a refusal, or "" if allowed
	Code    int    // the DNS response code
	Answers int    // the number of answer records
}

// ConfigOf returns the configuration that plugins may change during their setup.
func ConfigOf(controller *caddy.Controller) *Config { return &controller.Context().(*zone).config }

type zone struct{ config Config }

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

func (z *zone) MakeServers() ([]caddy.Server, error) {
	made, err := dnsserver.NewServer(transport.DNS+"://:"+z.config.Port, []*dnsserver.Config{&z.config.Config})
	if err != nil {
		return nil, err
	}
	return []caddy.Server{server{made, z.config.WatchTCP}}, nil
}

type server struct {
	*dnsserver.Server
	watchTCP func(net.Listener) net.Listener
}

func (s server) Serve(listener net.Listener) error {
	return s.Server.Serve(s.watchTCP(vital{listener}))
}

func (s server) ServePacket(socket net.PacketConn) error {
	err := s.Server.ServePacket(socket)
	endWith(socket.LocalAddr(), err)
	return err
}

type vital struct{ net.Listener }

func (v vital) Accept() (net.Conn, error) {
	connection, err := v.Listener.Accept()
	endWith(v.Addr(), err)
	return connection, err
}

// endWith ends the process after a lasting failure, so that Docker restarts it. CoreDNS would log a line and
// continue, without answers over this transport.
func endWith(place net.Addr, err error) {
	failure, ok := errors.AsType[net.Error](err)
	if err == nil || errors.Is(err, net.ErrClosed) || ok && failure.Temporary() { // such as too many files
		return
	}
	fmt.Fprintf(os.Stderr, "coredns: no longer listening at %s (%s): %v\n", place, place.Network(), err)
	os.Exit(1)
}
