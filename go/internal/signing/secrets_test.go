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

	"clawker-fw/internal/must"
	"clawker-fw/internal/statussocket"
)

var testKey = bytes.Repeat([]byte{7}, 32)

// give sends all secrets, or a query without any.
func (s *secrets) give(t testing.TB, all map[string]string) Held {
	t.Helper()
	return must.Get[Held](t)(s.take(Giving{Key: testKey, Give: all}))
}

// valueOf returns the value in a response with a secret.
func valueOf(t testing.TB, message []byte) string {
	t.Helper()
	for _, number := range []protowire.Number{responseResources, resourceContent, 2, 5, 1, 2} {
		var secretValue []byte
		if err := fields(message, func(its protowire.Number, value []byte) error {
			if its == number {
				secretValue = value
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		message = secretValue
	}
	return string(message)
}

// issuedValue returns the issued value, and its version.
func (s *secrets) issuedValue(t *testing.T, id string) (value, version string) {
	t.Helper()
	got := must.Get[issued](t)(s.issue(SecretPrefix+id, testTime))
	return valueOf(t, response(SecretPrefix+id, got.version, "1", got.secret)), got.version
}

// A secret has its last value, and is empty if it is missing: never gone. An unchanged one keeps its version.
func TestSecrets(t *testing.T) {
	now := testTime
	s := newSecrets(Kept{}, func() time.Time { return now })
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
	must.Get[Held](t)(s.take(Giving{Key: testKey, Give: map[string]string{"api#basic": "Basic c"}, Keep: []string{"github", "none"}}))
	if value, _ := s.issuedValue(t, "github"); value != "Bearer a" || s.turn.Load() != 2 {
		t.Errorf("kept: %q, %d", value, s.turn.Load())
	}
	s.give(t, map[string]string{"api#basic": "Basic c"})
	if value, _ := s.issuedValue(t, "github"); value != "" || s.isCurrent("secret:github", before, now) {
		t.Errorf("taken away: %q", value)
	}
	if s.turn.Load() != 3 {
		t.Errorf("%d changes are counted", s.turn.Load())
	}
}

// A digest shows holders of a secret whether it is the same, and reveals nothing to others.
func TestHeld(t *testing.T) {
	s := newSecrets(Kept{}, func() time.Time { return testTime })
	first := s.give(t, map[string]string{"a": "same", "b": "same"})
	if len(first.Secrets) != 2 || first.Secrets["a"] == first.Secrets["b"] || !first.Secrets["a"].Given.Equal(testTime) {
		t.Errorf("%+v", first)
	}
	if again := s.give(t, nil); again.Secrets["a"] != first.Secrets["a"] || s.turn.Load() != 1 {
		t.Errorf("asked: %+v", again)
	}
	other := must.Get[Held](t)(s.take(Giving{Key: bytes.Repeat([]byte{8}, 32)}))
	if other.Secrets["a"].Digest == first.Secrets["a"].Digest {
		t.Error("the digest is the same under another key")
	}
	if none := s.give(t, map[string]string{}); len(none.Secrets) != 0 {
		t.Errorf("all are taken away: %+v", none)
	}
}

// A secret that fits into no header, or has an invalid id, is refused, and changes nothing. No error has a value.
func TestRefusedSecrets(t *testing.T) {
	s := newSecrets(Kept{}, time.Now)
	s.give(t, map[string]string{"a": "kept"})
	many := map[string]string{}
	for number := range mostSecrets + 1 {
		many[fmt.Sprint("n", number)] = "x"
	}
	for what, giving := range map[string]Giving{
		"a short key": {Key: testKey[1:]}, "too many": {Key: testKey, Give: many},
		"empty": {Key: testKey, Give: map[string]string{"a": ""}}, "long": {Key: testKey, Give: map[string]string{"a": strings.Repeat("hidden", longestSecret/6+1)}},
		"a line break": {Key: testKey, Give: map[string]string{"a": "hidden\nhidden"}}, "a blank": {Key: testKey, Give: map[string]string{"a": "hidden "}},
		"not ASCII": {Key: testKey, Give: map[string]string{"a": "hiddén"}}, "NUL": {Key: testKey, Give: map[string]string{"a": "hid\x00den"}},
		"a dot": {Key: testKey, Give: map[string]string{"a.test": "hidden"}}, "upper case": {Key: testKey, Give: map[string]string{"A": "hidden"}}, "no id": {Key: testKey, Give: map[string]string{"": "hidden"}},
	} {
		if _, err := s.take(giving); err == nil || strings.Contains(err.Error(), "hid") {
			t.Errorf("%s: %v", what, err)
		}
	}
	if value, _ := s.issuedValue(t, "a"); value != "kept" || s.turn.Load() != 1 {
		t.Errorf("%q, %d changes", value, s.turn.Load())
	}
}

// Agents choose the names that Envoy requests, except names without a dot.
func TestSecretNames(t *testing.T) {
	s := newSecrets(Kept{}, time.Now)
	for _, asked := range []string{"secret:a.w.test", "secret:", "secret:A", "other:a", "secret:a:b", "a", "secret:a/b", "secret:a\n"} {
		if _, err := s.issue(asked, testTime); err == nil || s.isCurrent(asked, stamp{}, testTime) {
			t.Errorf("%q is answered", asked)
		}
	}
}

// The next signer restores the former one's secrets. An incomplete file is empty.
func TestSecretsOutliveTheSigner(t *testing.T) {
	file := must.Open[*os.File](t)(os.OpenFile(filepath.Join(t.TempDir(), "secrets"), os.O_RDWR|os.O_CREATE, 0o600))
	newSecrets(Kept{Memory: file}, time.Now).give(t, map[string]string{"a": strings.Repeat("long", 100)})
	first := newSecrets(Kept{Memory: file}, time.Now)
	first.give(t, map[string]string{"a": "short", "b": "other"})
	second := newSecrets(Kept{Memory: file}, time.Now)
	if value, version := second.issuedValue(t, "a"); value != "short" || !first.isCurrent("secret:a", stamp{issuer: version}, testTime) {
		t.Errorf("%q, %s", value, version)
	}
	second.give(t, map[string]string{"a": "short", "b": "other"})
	if second.turn.Load() != 0 {
		t.Error("the same secrets are a change")
	}
	size := must.Get[int64](t)(file.Seek(0, io.SeekEnd))
	must.Succeed(t, file.Truncate(size-2))
	if value, _ := newSecrets(Kept{Memory: file}, time.Now).issuedValue(t, "a"); value != "" {
		t.Errorf("half written: %q", value)
	}
	file.Close()
	if _, err := second.take(Giving{Key: testKey, Give: map[string]string{"a": "new"}}); err == nil || !strings.Contains(err.Error(), "in force") {
		t.Errorf("it can't be kept: %v", err)
	}
	if value, _ := second.issuedValue(t, "a"); value != "new" {
		t.Errorf("it is not in force: %q", value)
	}
}

// Only secrets at rest are on the disk. A removed one is overwritten.
func TestSecretsAtRest(t *testing.T) {
	folder := t.TempDir()
	open := func(name string) *os.File {
		return must.Get[*os.File](t)(os.OpenFile(filepath.Join(folder, name), os.O_RDWR|os.O_CREATE, 0o600))
	}
	kept := Kept{open("memory"), open("disk")}
	onDisk := func() string { return string(must.Get[[]byte](t)(os.ReadFile(filepath.Join(folder, "disk")))) }
	first := newSecrets(kept, time.Now)
	first.give(t, map[string]string{"a": "lasting", "b": "passing"})
	if got := onDisk(); got != "" {
		t.Errorf("without a word: %s", got)
	}
	give := func(giving Giving) Held {
		giving.Key = testKey
		return must.Get[Held](t)(first.take(giving))
	}
	held := give(Giving{Give: map[string]string{"a": "lasting", "b": "passing"}, Rest: []string{"a", "none"}})
	if got := onDisk(); !held.Secrets["a"].Rests || held.Secrets["b"].Rests || !strings.Contains(got, "lasting") || strings.Contains(got, "passing") {
		t.Errorf("%+v: %s", held, got)
	}

	again := newSecrets(Kept{open("new memory"), kept.Disk}, time.Now)
	value, version := again.issuedValue(t, "a")
	if value != "lasting" || !first.isCurrent("secret:a", stamp{issuer: version}, testTime) {
		t.Errorf("in the next container: %q, %s", value, version)
	}
	if value, _ := again.issuedValue(t, "b"); value != "" {
		t.Errorf("in the next container: %q", value)
	}

	if held := give(Giving{Give: map[string]string{"b": "passing"}, Keep: []string{"a"}, Rest: []string{"a"}}); !held.Secrets["a"].Rests {
		t.Errorf("one that stays as it is: %+v", held)
	}
	if held := give(Giving{Give: map[string]string{}, Keep: []string{"a", "b"}}); len(held.Secrets) != 2 || held.Secrets["a"].Rests || strings.Contains(onDisk(), "lasting") {
		t.Errorf("kept in memory alone: %+v: %s", held, onDisk())
	}
	give(Giving{Give: map[string]string{"a": "lasting"}, Rest: []string{"a"}})
	give(Giving{Give: map[string]string{}})
	for _, memory := range []*os.File{kept.Memory, open("another memory")} {
		if got := newSecrets(Kept{memory, kept.Disk}, time.Now); got.count() != 0 || strings.Contains(onDisk(), "lasting") {
			t.Errorf("taken away: %d: %s", got.count(), onDisk())
		}
	}
	kept.Disk.Close()
	if _, err := first.take(Giving{Key: testKey, Give: map[string]string{"a": "new"}, Rest: []string{"a"}}); err == nil || !strings.Contains(err.Error(), "in force") {
		t.Errorf("it can't be kept: %v", err)
	}
	if value, _ := newSecrets(kept, time.Now).issuedValue(t, "a"); value != "new" {
		t.Errorf("the next signer has %q", value)
	}
}

// A change of a secret reaches Envoy at once, and secrets are never removed for lack of room.
func TestSecretsOnTheStream(t *testing.T) {
	s := newSigner(t)
	stream := s.stream(t)
	stream.say(request{subscribe: []string{"secret:github"}})
	if got := must.Get[[]byte](t)(readFrame(stream.response.Body)); valueOf(t, got) != "" || parseAnswer(t, got).isRemoval() {
		t.Error("what nobody has given is not empty")
	}
	for _, want := range []string{"Bearer a", "Bearer b", ""} {
		all := map[string]string{}
		if want != "" {
			all["github"] = want
		}
		s.secrets.give(t, all)
		if got := must.Get[[]byte](t)(readFrame(stream.response.Body)); valueOf(t, got) != want {
			t.Errorf("%q instead of %q", valueOf(t, got), want)
		}
	}
}

func TestSecretsAreNotEvicted(t *testing.T) {
	s := newScene(t, "a", "b", "c")
	s.most = 2
	s.take(request{subscribe: []string{"secret:x", "a", "b", "secret:y", "c"}})
	if got := s.answers(); got != "secret:x=none a=1 b=1 secret:y=none c=1 -a" {
		t.Error(got)
	}
	s.take(request{nonce: "1", rejected: true})
	if got := s.answers(); got != "" || s.rejected.Load() != 1 {
		t.Errorf("a rejected secret: %q", got)
	}
	s.take(request{unsubscribe: []string{"secret:x"}})
	s.sources.secrets.(*secrets).give(t, map[string]string{"x": "1", "y": "2"})
	s.review(testTime)
	if got := s.answers(); !strings.HasPrefix(got, "secret:y=2") || strings.Contains(got, "secret:x") {
		t.Error(got)
	}
}

// Secrets arrive over a socket.
func TestGiveSecrets(t *testing.T) {
	folder := t.TempDir()
	giving := Giving{Key: testKey, Give: map[string]string{"a": "x"}}
	if _, err := GiveSecrets(folder, giving); err == nil {
		t.Error("nobody listens")
	}
	s := newSecrets(Kept{}, time.Now)
	listener := must.Get[net.Listener](t)(net.Listen("unix", filepath.Join(folder, secretsSocket)))
	ended := make(chan struct{})
	go func() {
		statussocket.Serve(listener, 1, s.converse)
		close(ended)
	}()
	held := must.Get[Held](t)(GiveSecrets(folder, giving))
	if len(held.Secrets) != 1 || held.Version("a") != held.Secrets["a"].Given.Format(time.RFC3339Nano) || held.Version("b") != "none" {
		t.Errorf("%+v", held)
	}
	if _, version := s.issuedValue(t, "a"); version != held.Version("a") {
		t.Errorf("Envoy is told the version %s", version)
	}
	if _, err := GiveSecrets(folder, Giving{Give: map[string]string{"a": "hidden"}}); err == nil || strings.Contains(err.Error(), "hidden") {
		t.Errorf("without a key: %v", err)
	}
	listener.Close()
	<-ended
}

// A client's message has a size, and no error repeats its content.
func TestReadGiving(t *testing.T) {
	content := must.Get[[]byte](t)(json.Marshal(Giving{Key: testKey, Give: map[string]string{"a": "x"}, Rest: []string{"a"}}))
	got := must.Get[Giving](t)(ReadGiving(int64(len(content)), io.MultiReader(bytes.NewReader(content), strings.NewReader("more"))))
	if got.Give["a"] != "x" || len(got.Rest) != 1 {
		t.Errorf("%+v", got)
	}
	for _, content := range []string{"hidden", `{"key": "hidden!"}`, `{"give": {"a": "hid`} {
		if _, err := ReadGiving(int64(len(content)), strings.NewReader(content)); err == nil || strings.Contains(err.Error(), "hid") {
			t.Errorf("%s: %v", content, err)
		}
	}
	for _, size := range []int64{0, -1, mostGiven + 1, 10} {
		if _, err := ReadGiving(size, strings.NewReader("{")); err == nil {
			t.Errorf("%d octets are taken", size)
		}
	}
}
