package signing

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protowire"

	"clawker-fw/internal/statussocket"
)

var testKey = bytes.Repeat([]byte{7}, 32)

// give gives all secrets, or asks if there are none.
func (s *secrets) give(t testing.TB, all map[string]string) Held {
	t.Helper()
	return must[Held](t)(s.take(Giving{testKey, all, nil}))
}

// valueOf returns the value in a response with a secret.
func valueOf(t testing.TB, message []byte) string {
	t.Helper()
	for _, number := range []protowire.Number{responseResources, resourceContent, 2, 5, 1, 2} {
		var found []byte
		if err := fields(message, func(its protowire.Number, value []byte) error {
			if its == number {
				found = value
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		message = found
	}
	return string(message)
}

// issuedValue returns what Envoy gets, and its version.
func (s *secrets) issuedValue(t *testing.T, id string) (value, version string) {
	t.Helper()
	found := must[issued](t)(s.issue(SecretPrefix+id, testTime))
	return valueOf(t, given(SecretPrefix+id, found.version, "1", found.secret)), found.version
}

// A secret is what was given last, and empty if there is none: never gone. One that stays as it is keeps its version.
func TestSecrets(t *testing.T) {
	now := testTime
	s := newSecrets(nil, func() time.Time { return now })
	if value, version := s.issuedValue(t, "github"); value != "" || version != "none" {
		t.Errorf("before any was given: %q, %s", value, version)
	}
	s.give(t, map[string]string{"github": "Bearer a", "api#basic": "Basic b"})
	value, version := s.issuedValue(t, "github")
	if value != "Bearer a" || version != "2030-01-02T03:04:05Z" {
		t.Errorf("given: %q, %s", value, version)
	}
	before := stamp{issuer: version}
	now = now.Add(time.Minute)
	s.give(t, map[string]string{"github": "Bearer a", "api#basic": "Basic c"})
	if !s.isCurrent("secret:github", before, now) || s.isCurrent("secret:api#basic", before, now) {
		t.Error("only what has changed is another version")
	}
	must[Held](t)(s.take(Giving{testKey, map[string]string{"api#basic": "Basic c"}, []string{"github", "none"}}))
	if value, _ := s.issuedValue(t, "github"); value != "Bearer a" || s.changes() != 2 {
		t.Errorf("kept: %q, %d", value, s.changes())
	}
	s.give(t, map[string]string{"api#basic": "Basic c"})
	if value, _ := s.issuedValue(t, "github"); value != "" || s.isCurrent("secret:github", before, now) {
		t.Errorf("taken away: %q", value)
	}
	if s.changes() != 3 {
		t.Errorf("%d changes are counted", s.changes())
	}
}

// The digests tell whoever has a secret whether it is the same, and nobody else anything.
func TestHeld(t *testing.T) {
	s := newSecrets(nil, func() time.Time { return testTime })
	first := s.give(t, map[string]string{"a": "same", "b": "same"})
	if len(first.Secrets) != 2 || first.Secrets["a"] == first.Secrets["b"] || !first.Secrets["a"].Given.Equal(testTime) {
		t.Errorf("%+v", first)
	}
	if again := s.give(t, nil); again.Secrets["a"] != first.Secrets["a"] || s.changes() != 1 {
		t.Errorf("asked: %+v", again)
	}
	other := must[Held](t)(s.take(Giving{Key: bytes.Repeat([]byte{8}, 32)}))
	if other.Secrets["a"].Digest == first.Secrets["a"].Digest {
		t.Error("the digest is the same under another key")
	}
	if none := s.give(t, map[string]string{}); len(none.Secrets) != 0 {
		t.Errorf("all are taken away: %+v", none)
	}
}

// What can be no header, or has no proper id, is refused, and changes nothing. No value is in an error.
func TestRefusedSecrets(t *testing.T) {
	s := newSecrets(nil, time.Now)
	s.give(t, map[string]string{"a": "kept"})
	many := map[string]string{}
	for number := range mostSecrets + 1 {
		many[fmt.Sprint("n", number)] = "x"
	}
	for what, each := range map[string]Giving{
		"a short key": {testKey[1:], nil, nil}, "too many": {testKey, many, nil},
		"empty": {testKey, map[string]string{"a": ""}, nil}, "long": {testKey, map[string]string{"a": strings.Repeat("hidden", longestSecret/6+1)}, nil},
		"a line break": {testKey, map[string]string{"a": "hidden\nhidden"}, nil}, "a blank": {testKey, map[string]string{"a": "hidden "}, nil},
		"not ASCII": {testKey, map[string]string{"a": "hiddén"}, nil}, "NUL": {testKey, map[string]string{"a": "hid\x00den"}, nil},
		"a dot": {testKey, map[string]string{"a.test": "hidden"}, nil}, "upper case": {testKey, map[string]string{"A": "hidden"}, nil}, "no id": {testKey, map[string]string{"": "hidden"}, nil},
	} {
		if _, err := s.take(each); err == nil || strings.Contains(err.Error(), "hid") {
			t.Errorf("%s: %v", what, err)
		}
	}
	if value, _ := s.issuedValue(t, "a"); value != "kept" || s.changes() != 1 {
		t.Errorf("%q, %d changes", value, s.changes())
	}
}

// Agents choose what Envoy asks for, but for names that have no dot.
func TestSecretNames(t *testing.T) {
	s := newSecrets(nil, time.Now)
	for _, asked := range []string{"secret:a.w.test", "secret:", "secret:A", "other:a", "secret:a:b", "a", "secret:a/b", "secret:a\n"} {
		if _, err := s.issue(asked, testTime); err == nil || s.isCurrent(asked, stamp{}, testTime) {
			t.Errorf("%q is answered", asked)
		}
	}
}

// The next signer has what the one before was given. What was half written is nothing.
func TestSecretsOutliveTheSigner(t *testing.T) {
	file := must[*os.File](t)(os.OpenFile(filepath.Join(t.TempDir(), "secrets"), os.O_RDWR|os.O_CREATE, 0o600))
	defer file.Close()
	newSecrets(file, time.Now).give(t, map[string]string{"a": strings.Repeat("long", 100)})
	first := newSecrets(file, time.Now)
	first.give(t, map[string]string{"a": "short", "b": "other"})
	second := newSecrets(file, time.Now)
	if value, version := second.issuedValue(t, "a"); value != "short" || !first.isCurrent("secret:a", stamp{issuer: version}, testTime) {
		t.Errorf("%q, %s", value, version)
	}
	second.give(t, map[string]string{"a": "short", "b": "other"})
	if second.changes() != 0 {
		t.Error("the same secrets are a change")
	}
	size := must[int64](t)(file.Seek(0, io.SeekEnd))
	if err := file.Truncate(size - 1); err != nil {
		t.Fatal(err)
	}
	if value, _ := newSecrets(file, time.Now).issuedValue(t, "a"); value != "" {
		t.Errorf("half written: %q", value)
	}
	file.Close()
	if _, err := second.take(Giving{testKey, map[string]string{"a": "new"}, nil}); err == nil || !strings.Contains(err.Error(), "in force") {
		t.Errorf("it can't be kept: %v", err)
	}
	if value, _ := second.issuedValue(t, "a"); value != "new" {
		t.Errorf("it is not in force: %q", value)
	}
}

// A change of a secret reaches Envoy at once, and secrets are never taken back for want of room.
func TestSecretsOnTheStream(t *testing.T) {
	s := newSigner(t)
	stream := s.stream(t)
	stream.say(request{subscribe: []string{"secret:github"}})
	if found := must[[]byte](t)(readFrame(stream.response.Body)); valueOf(t, found) != "" || parseAnswer(t, found).isRemoval() {
		t.Error("what nobody has given is not empty")
	}
	for _, wanted := range []string{"Bearer a", "Bearer b", ""} {
		all := map[string]string{}
		if wanted != "" {
			all["github"] = wanted
		}
		s.secrets.give(t, all)
		if found := must[[]byte](t)(readFrame(stream.response.Body)); valueOf(t, found) != wanted {
			t.Errorf("%q instead of %q", valueOf(t, found), wanted)
		}
	}
}

func TestSecretsAreNotEvicted(t *testing.T) {
	s := newScene(t, "a", "b", "c")
	s.most = 2
	s.take(request{subscribe: []string{"secret:x", "a", "b", "secret:y", "c"}})
	if found := s.answers(); found != "secret:x=none a=1 b=1 secret:y=none c=1 -a" {
		t.Error(found)
	}
	s.take(request{nonce: "1", rejected: true})
	if found := s.answers(); found != "" || s.rejected.Load() != 1 {
		t.Errorf("a rejected secret: %q", found)
	}
	s.take(request{unsubscribe: []string{"secret:x"}})
	s.sources.secrets.(*secrets).give(t, map[string]string{"x": "1", "y": "2"})
	s.review(testTime)
	if found := s.answers(); !strings.HasPrefix(found, "secret:y=2") || strings.Contains(found, "secret:x") {
		t.Error(found)
	}
}

// Secrets come over a socket, from whoever passes them on.
func TestGiveSecrets(t *testing.T) {
	folder := t.TempDir()
	content := must[[]byte](t)(json.Marshal(Giving{testKey, map[string]string{"a": "x"}, nil}))
	if _, err := GiveSecrets(folder, int64(len(content)), bytes.NewReader(content)); err == nil {
		t.Error("nobody listens")
	}
	s := newSecrets(nil, time.Now)
	listener := must[net.Listener](t)(net.Listen("unix", secretsSocketIn(folder)))
	ended := make(chan struct{})
	go func() {
		statussocket.Serve(listener, s.converse)
		close(ended)
	}()
	held := must[Held](t)(GiveSecrets(folder, int64(len(content)), bytes.NewReader(content)))
	if len(held.Secrets) != 1 {
		t.Errorf("%+v", held)
	}
	for what, each := range map[string]string{"no JSON": "hidden", "refused": `{"key":"","give":{}}`} {
		if _, err := GiveSecrets(folder, int64(len(each)), strings.NewReader(each)); err == nil || strings.Contains(err.Error(), "hidden") {
			t.Errorf("%s: %v", what, err)
		}
	}
	for _, size := range []int64{0, -1, mostGiven + 1, 10} {
		if _, err := GiveSecrets(folder, size, strings.NewReader("{")); err == nil {
			t.Errorf("%d octets are taken", size)
		}
	}
	listener.Close()
	<-ended
}
