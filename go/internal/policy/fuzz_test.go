package policy

import (
	"bytes"
	"context"
	"encoding/json"
	"path/filepath"
	"testing"
	"time"

	"github.com/miekg/dns"

	"clawker-fw/internal/hotfile"
	"clawker-fw/internal/must"
)

// For any query, the answer can be sent, has an address only for an allowed name, and its record is lines of JSON.
// The seeds run with every `go test`; `go test -fuzz FuzzServeDNS` looks for more.
func FuzzServeDNS(f *testing.F) {
	for _, name := range []string{"a.test.", "x.w.test.", "evil.test.", ".", `a\000b\".test.`} {
		query := new(dns.Msg)
		query.SetQuestion(name, dns.TypeA)
		packed, err := query.Pack()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(packed)
		query.SetEdns0(payload, true)
		if packed, err = query.Pack(); err != nil {
			f.Fatal(err)
		}
		f.Add(packed)
	}
	path := filepath.Join(f.TempDir(), "names.json")
	must.Put(f, path, example)
	source := hotfile.New(path, Parse)
	source.Refresh()
	f.Fuzz(func(t *testing.T, content []byte) {
		query := new(dns.Msg)
		if query.Unpack(content) != nil || query.Response {
			_ = undecided(content) // what the server answers by itself has such bytes, too
			return
		}
		var refusals bytes.Buffer
		asked := Handler{source, NewRecorder(&refusals), func() time.Time { return then }, nil}
		who := &writer{from: stranger}
		if _, err := asked.ServeDNS(context.Background(), who, query); err != nil {
			t.Fatal(err)
		}
		packed, err := who.reply.Pack()
		if err != nil {
			t.Fatalf("the answer to %v can't be sent: %v", query, err)
		}
		_ = undecided(packed)
		if len(who.reply.Answer) > 0 && source.Value().Decide(query.Question[0].Name, then).Reason != "" {
			t.Errorf("%v is answered with %v", query.Question, who.reply.Answer)
		}
		asked.refusals.waiting.Wait()
		for _, line := range bytes.Split(bytes.TrimSpace(refusals.Bytes()), []byte("\n")) {
			if len(line) > 0 && !json.Valid(line) {
				t.Errorf("%q is no JSON", line)
			}
		}
	})
}
