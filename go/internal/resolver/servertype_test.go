package resolver

import (
	"context"
	"net"
	"strconv"
	"strings"
	"testing"

	"github.com/coredns/caddy"
	"github.com/coredns/coredns/plugin"
	"github.com/miekg/dns"

	"clawker-fw/internal/must"
)

// answering answers each query.
type answering struct{}

func (answering) Name() string { return "policy" }

func (answering) ServeDNS(_ context.Context, writer dns.ResponseWriter, query *dns.Msg) (int, error) {
	return dns.RcodeSuccess, writer.WriteMsg(new(dns.Msg).SetReply(query))
}

// watching counts the clients that a listener accepts.
type watching struct {
	net.Listener
	clients *int
}

func (w watching) Accept() (net.Conn, error) {
	connection, err := w.Listener.Accept()
	if err == nil {
		*w.clients++
	}
	return connection, err
}

var watched int

func init() {
	Register("policy", func(controller *caddy.Controller) error {
		config := ConfigOf(controller)
		config.AddPlugin(func(plugin.Handler) plugin.Handler { return answering{} })
		config.WatchTCP = func(listener net.Listener) net.Listener { return watching{listener, &watched} }
		return nil
	})
}

func corefile(text string) caddy.Input {
	return caddy.CaddyfileInput{Filepath: "Corefile", Contents: []byte(text), ServerTypeName: ServerType}
}

// The server answers over both transports for its zone, and TCP connections can be watched.
func TestServes(t *testing.T) {
	free := must.Get[net.Listener](t)(net.Listen("tcp", ":0"))
	port := free.Addr().(*net.TCPAddr).Port
	free.Close()
	instance, err := caddy.Start(corefile("test:" + strconv.Itoa(port) + " {\n policy\n}\n"))
	must.Succeed(t, err)
	for _, transport := range []string{"udp", "tcp"} {
		for name, want := range map[string]int{"a.test.": dns.RcodeSuccess, "a.other.": dns.RcodeRefused} {
			query := new(dns.Msg).SetQuestion(name, dns.TypeA)
			reply, _, err := (&dns.Client{Net: transport}).Exchange(query, net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
			if err != nil || reply.Rcode != want {
				t.Errorf("%s over %s: got %v, %v", name, transport, reply, err)
			}
		}
	}
	must.Succeed(t, instance.Stop())
	instance.Wait()
	if watched != 2 {
		t.Errorf("%d clients were watched", watched)
	}
}

// A Corefile has exactly one zone, on one port.
func TestCorefileErrors(t *testing.T) {
	for text, want := range map[string]string{
		"":                             "Corefile: expected exactly one zone",
		". {\n policy\n}\nx {\n}\n":    "Corefile: expected exactly one zone",
		"x y {\n policy\n}\n":          "Corefile: expected exactly one zone",
		"x: {\n policy\n}\n":           "expecting data after last colon",
		". {\n forward . 192.0.2.1\n}": "Unknown directive 'forward'",
	} {
		if _, err := caddy.Start(corefile(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v, expected %q in it", text, err, want)
		}
	}
}
