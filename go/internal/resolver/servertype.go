// Package resolver has CoreDNS's server started by Caddy such that its connections over TCP can be watched. CoreDNS's own type of
// server has a place for that over UDP alone.
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

// ServerType is what Caddy knows this type of server by.
const ServerType = "resolver"

func init() {
	caddy.RegisterServerType(ServerType, caddy.ServerType{
		// The plugins, in the order in which they are set up: the second one tells the first what it did.
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
	Report   func(Outcome) // nil if nobody is told
}

// Outcome is what the policy did with one query of somebody else than this container.
type Outcome struct {
	Client  netip.Addr
	Name    string
	Type    uint16
	Began   time.Time
	Took    time.Duration
	Reason  string // why it was refused, or "" if it was allowed
	Code    int    // the response code
	Answers int    // the number of answer records
}

// ConfigOf returns the settings that a plugin may change while it is set up.
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

// endWith ends the process with a failure that lasts, so that the engine starts it again: CoreDNS would write a line and go on,
// and nobody would be answered over this transport any more.
func endWith(place net.Addr, err error) {
	failure, ok := errors.AsType[net.Error](err)
	if err == nil || errors.Is(err, net.ErrClosed) || ok && failure.Temporary() { // such as too many files
		return
	}
	fmt.Fprintf(os.Stderr, "coredns: it does not listen at %s (%s) any more: %v\n", place, place.Network(), err)
	os.Exit(1)
}
