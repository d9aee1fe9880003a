package signing

import (
	"bytes"
	"encoding/json"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"clawker-fw/internal/hostname"
	"clawker-fw/internal/hotfile"
	"clawker-fw/internal/must"
)

// Clients' names that Envoy passes on, and messages on its stream. The seeds run with every `go test`;
// `go test -fuzz NAME` looks for more.

// Whatever a stream sends, each name in it is answered once, and only issued resources are held.
func FuzzStream(f *testing.F) {
	whole := framed(encoded(request{kind: secretType, subscribe: []string{"a", "x", "secret:a", "a"}, unsubscribe: []string{"b"}}))
	f.Add(whole)
	f.Add(append(whole, framed(encoded(request{kind: secretType, nonce: "1", rejected: true, reason: "bad"}))...))
	f.Add(whole[:len(whole)-3])
	f.Add([]byte("\x00\x00\x00\x00\x02\x1a\x05"))
	f.Fuzz(func(t *testing.T, content []byte) {
		s := newScene(t, "a", "b", "c")
		s.most = 2
		for body := bytes.NewReader(content); ; {
			message, err := readFrame(body)
			if err != nil {
				break
			}
			parsed, err := parseRequest(message)
			if err != nil {
				break
			}
			s.take(parsed)
			want := len(s.awaiting)
			answered := map[string]bool{}
			for message := s.next(testTime); message != nil; message = s.next(testTime) {
				answered[parseAnswer(t, message).name] = true
			}
			for _, name := range parsed.subscribe {
				if !answered[name] {
					t.Errorf("%q was not answered", name)
				}
			}
			if len(answered) < want || s.certificates > s.most || len(s.subscription.held) != s.order.Len() || len(s.awaiting) > 0 {
				t.Errorf("%d of %d answered, %d held, %d in order", len(answered), want, len(s.subscription.held), s.order.Len())
			}
		}
	})
}

// Whatever the requested name, a certificate is for that name in lower case, if it is valid and the policy has it.
func FuzzName(f *testing.F) {
	root := newTestRoot(f)
	folder := filepath.Dir(must.SocketPath(f))
	must.Put(f, folder+"/names", `{"names":["one.test"],"subtrees":["w.test"]}`)
	content := must.Get[[]byte](f)(json.Marshal(map[string][]pair{"intermediates": {root.intermediate(f, []string{"one.test", "w.test"})}}))
	must.Put(f, folder+"/intermediates", string(content))
	source := certificates{hotfile.New(folder+"/names", parseNames), hotfile.New(folder+"/intermediates", parseAuthority)}
	source.names.Refresh()
	source.intermediates.Refresh()
	for _, text := range []string{
		"a.w.test", "A.W.TEST", "one.test", "x.one.test", "*.w.test", "a..w.test", ".w.test", "w.test.", "127.0.0.1", "a\x00.w.test", "\u212a.w.test",
		"a/../../b.w.test", "xw.test", "w.test", "N0.W.TeSt", "::1", "secret:w.test", "secret:w", strings.Repeat("a", 64) + ".w.test", strings.Repeat("a.", 124) + "w.test", "",
	} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, asked string) {
		got, err := sources{source, newSecrets(Kept{}, time.Now)}.of(asked).issue(asked, testTime)
		lower, ok := hostname.Lower(asked)
		covered := ok && (lower == "one.test" || lower == "w.test" || strings.HasSuffix(lower, ".w.test"))
		if isSecret := strings.HasPrefix(asked, SecretPrefix) && err == nil; isSecret && !strings.Contains(asked, ".") {
			return
		}
		if covered != (err == nil) {
			t.Fatalf("%q: %v", asked, err)
		}
		if !covered {
			return
		}
		answer := parseAnswer(t, response(asked, got.version, "1", got.secret))
		if certificate := root.verify(t, answer.chain, lower, testTime); len(certificate.DNSNames) != 1 || certificate.DNSNames[0] != lower {
			t.Errorf("%q has a certificate for %q", asked, certificate.DNSNames)
		}
	})
}
