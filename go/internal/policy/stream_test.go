package policy

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"slices"
	"strings"
	"testing"

	"github.com/coredns/coredns/core/dnsserver"
	"github.com/coredns/coredns/plugin"
	"github.com/miekg/dns"
	"golang.org/x/sys/unix"

	"clawker-fw/internal/must"
	"clawker-fw/internal/reason"
)

// framed returns messages in TCP framing, one after the other (RFC 1035, section 4.2.2).
func framed(messages ...[]byte) []byte {
	var content []byte
	for _, message := range messages {
		content = append(binary.BigEndian.AppendUint16(content, uint16(len(message))), message...)
	}
	return content
}

// overTCP sends bytes to CoreDNS over a connection, and returns its records and its client address.
func overTCP(t *testing.T, content []byte) ([]record, string) {
	t.Helper()
	asked, refusals := handler(t)
	config := &dnsserver.Config{Zone: ".", Plugin: []plugin.Plugin{func(plugin.Handler) plugin.Handler { return asked }}}
	server, err := dnsserver.NewServer("dns://127.0.0.1:0", []*dnsserver.Config{config})
	must.Succeed(t, err)
	listener, err := server.Listen()
	must.Succeed(t, err)
	served := make(chan error)
	go func() { served <- server.Serve(asked.watchTCP(listener)) }()
	connection, err := net.Dial("tcp", listener.Addr().String())
	must.Succeed(t, err)
	source := connection.LocalAddr().String()
	must.Get[int](t)(connection.Write(content))
	// Until CoreDNS has closed it, by a reset if it has not read everything.
	_ = connection.(*net.TCPConn).CloseWrite()
	if _, err = io.Copy(io.Discard, connection); err != nil && !errors.Is(err, unix.ECONNRESET) {
		t.Fatal(err)
	}
	connection.Close()
	must.Succeed(t, server.Stop())
	must.Succeed(t, <-served)
	asked.refusals.waiting.Wait()
	return lines(t, refusals), source
}

// Other messages than queries leave a line over TCP too, each its own, with the sender. So do invalid and
// incomplete messages; a message that CoreDNS ignores is the last on its connection.
func TestMessagesOverTCP(t *testing.T) {
	query := func(change func(*dns.Msg)) []byte {
		message := new(dns.Msg).SetQuestion("a.test.", dns.TypeTXT)
		change(message)
		return packed(t, message)
	}
	allowed := query(func(*dns.Msg) {})
	version := query(func(m *dns.Msg) { m.SetEdns0(payload, false).IsEdns0().SetVersion(1) })
	answer := query(func(m *dns.Msg) { m.Response = true })
	chaos := query(func(m *dns.Msg) { m.Question[0].Qclass = dns.ClassCHAOS })
	for what, test := range map[string]struct {
		content []byte
		names   []string // of the lines
	}{
		"a query":              {framed(allowed, allowed), nil},
		"nothing":              {nil, nil},
		"another name":         {framed(query(func(m *dns.Msg) { m.Question[0].Name = "b.test." })), []string{"b.test"}},
		"another version":      {framed(version), []string{"a.test"}},
		"another class":        {framed(chaos), []string{"a.test"}},
		"an update":            {framed(query(func(m *dns.Msg) { m.Opcode = dns.OpcodeUpdate })), []string{""}},
		"a notification":       {framed(query(func(m *dns.Msg) { m.Opcode = dns.OpcodeNotify })), []string{"a.test"}},
		"two questions":        {framed(query(func(m *dns.Msg) { m.Question = append(m.Question, m.Question[0]) })), []string{""}},
		"no name":              {framed(slices.Concat(allowed[:12], []byte("\xc0\x0c\x00\x01\x00\x01"))), []string{""}},
		"an answer":            {framed(answer), []string{""}},
		"an empty message":     {framed(nil), []string{""}},
		"less than a header":   {framed(allowed[:11]), []string{""}},
		"a cut message":        {framed(allowed)[:20], []string{""}},
		"a cut length":         {[]byte{0}, []string{""}},
		"a length alone":       {[]byte{0, 20}, []string{""}},
		"TLS":                  {[]byte("\x16\x03\x01\x00\x05hello"), []string{""}},
		"several":              {slices.Concat(framed(version, allowed, chaos), []byte{0}), []string{"a.test", "a.test", ""}},
		"what is ignored":      {framed(nil, nil, chaos), []string{""}},
		"a long, whole answer": {framed(append(slices.Clone(answer), make([]byte, 60000)...), chaos), []string{""}},
	} {
		got, source := overTCP(t, test.content)
		var names []string
		for _, line := range got {
			names = append(names, line.Name)
			want := reason.BadRequest
			if line.Name == "b.test" {
				want = reason.NoRule
			}
			if line.Source != source || line.Reason != want || line.Protocol != "dns" {
				t.Errorf("%s: got %+v, from %s", what, line, source)
			}
		}
		if !slices.Equal(names, test.names) {
			t.Errorf("%s: got %q, expected %q", what, strings.Join(names, ", "), test.names)
		}
	}
}

// A client that does not wait for the answer is recorded.
func TestClientThatIsGone(t *testing.T) {
	var refusals bytes.Buffer
	near, far := net.Pipe()
	far.Close()
	client := &stream{Conn: near, refusals: NewRecorder(&refusals)}
	answer := packed(t, &dns.Msg{MsgHdr: dns.MsgHdr{Response: true, Rcode: dns.RcodeFormatError}})
	if _, err := client.Write(framed(answer)); err == nil {
		t.Error("it was written")
	}
	client.refusals.waiting.Wait()
	if got := lines(t, &refusals); len(got) != 1 || got[0].Reason != reason.BadRequest {
		t.Errorf("got %+v", got)
	}
}
