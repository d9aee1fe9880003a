package signing

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"clawker-fw/internal/must"
	"clawker-fw/internal/users"
)

// signer is a signer with its files and a settable time.
type signer struct {
	*server
	testRoot
	folder string
	client http.Client
	offset atomic.Int64
}

func newSigner(t *testing.T) *signer {
	t.Helper()
	folder := filepath.Dir(must.SocketPath(t))
	started := &signer{testRoot: newTestRoot(t), folder: folder}
	started.sign(t, "w.test")
	started.inspect(t, "w.test")
	started.server = newServer(filepath.Join(folder, "names"), filepath.Join(folder, "intermediates"), Kept{})
	started.server.now = func() time.Time { return testTime.Add(time.Duration(started.offset.Load())) }
	started.follow()
	listener := must.Get[net.Listener](t)(net.Listen("unix", filepath.Join(folder, "s")))
	serving := started.overHTTP()
	done := make(chan error)
	go func() { done <- serving.Serve(listener) }()
	t.Cleanup(func() {
		started.client.CloseIdleConnections()
		_ = serving.Close()
		<-done
	})
	var protocols http.Protocols
	protocols.SetUnencryptedHTTP2(true)
	started.client.Transport = &http.Transport{Protocols: &protocols, DialContext: func(context.Context, string, string) (net.Conn, error) {
		return net.Dial("unix", filepath.Join(folder, "s"))
	}}
	return started
}

// put replaces a file in one step, like a commit.
func (s *signer) put(t *testing.T, name string, content []byte) {
	t.Helper()
	must.Put(t, filepath.Join(s.folder, "fresh"), string(content))
	must.Succeed(t, os.Rename(filepath.Join(s.folder, "fresh"), filepath.Join(s.folder, name)))
}

func (s *signer) inspect(t *testing.T, subtrees ...string) {
	t.Helper()
	s.put(t, "names", must.Get[[]byte](t)(json.Marshal(map[string][]string{"subtrees": subtrees})))
}

func (s *signer) sign(t *testing.T, names ...string) {
	t.Helper()
	s.put(t, "intermediates", authorityFile(t, s.intermediate(t, names)))
}

// caller is a stream like Envoy's.
type caller struct {
	t        *testing.T
	body     *io.PipeWriter
	response *http.Response
}

func (s *signer) call(t *testing.T, path, kind string) *caller {
	t.Helper()
	read, write := io.Pipe()
	asked := must.Get[*http.Request](t)(http.NewRequest(http.MethodPost, "http://signer"+path, read))
	asked.Header.Set("Content-Type", kind)
	response := must.Get[*http.Response](t)(s.client.Do(asked))
	stream := &caller{t, write, response}
	t.Cleanup(stream.hangUp)
	return stream
}

func (s *signer) stream(t *testing.T) *caller {
	t.Helper()
	return s.call(t, method, "application/grpc")
}

func (c *caller) hangUp() {
	c.body.Close()
	c.response.Body.Close()
}

func (c *caller) say(message request) {
	c.t.Helper()
	message.kind = secretType
	must.Get[int](c.t)(c.body.Write(framed(encoded(message))))
}

func (c *caller) next() answer {
	c.t.Helper()
	message := must.Get[[]byte](c.t)(readFrame(c.response.Body))
	return parseAnswer(c.t, message)
}

// ask requests one name.
func (c *caller) ask(name string) answer {
	c.t.Helper()
	c.say(request{subscribe: []string{name}})
	got := c.next()
	if got.name != name {
		c.t.Fatalf("%q was answered instead of %q", got.name, name)
	}
	return got
}

// status returns the gRPC status of an ended stream.
func (c *caller) status() string {
	c.t.Helper()
	if _, err := io.Copy(io.Discard, c.response.Body); err != nil {
		c.t.Fatal(err)
	}
	return c.response.Trailer.Get("Grpc-Status")
}

// Envoy gets a certificate under the requested name, for that name in lower case, and no others.
func TestStream(t *testing.T) {
	s := newSigner(t)
	stream := s.stream(t)
	for asked, name := range map[string]string{"a.w.test": "a.w.test", "B.W.TeSt": "b.w.test", "w.test": "w.test"} {
		got := stream.ask(asked)
		s.verify(t, got.chain, name, testTime)
	}
	for _, asked := range []string{"w.test2", "one.test", "*.w.test", "secret:key.w.test", "", "1.2.3.4", "a/../b.w.test", strings.Repeat("a", 70) + ".w.test"} {
		if !stream.ask(asked).isRemoval() {
			t.Errorf("%q has a certificate", asked)
		}
	}
	if status := s.status(); status.Held != 3 || status.Failure != "" {
		t.Errorf("%+v", status)
	}
	stream.body.Close()
	if status := stream.status(); status != "0" {
		t.Errorf("the stream ended with %s", status)
	}
	must.Happen(t, "the stream is forgotten", func() bool { return s.status().Held == 0 })
}

// A name is signed only if the policy and an intermediate cover it.
func TestBothMustCover(t *testing.T) {
	s := newSigner(t)
	s.inspect(t, "w.test", "one.test")
	s.sign(t, "w.test", "two.test")
	stream := s.stream(t)
	must.Happen(t, "the files are read", func() bool {
		return s.names.Value().rule("one.test") != "" && s.intermediates.Value().covering("two.test") != nil
	})
	for _, asked := range []string{"a.one.test", "a.two.test"} {
		if !stream.ask(asked).isRemoval() {
			t.Errorf("%q has a certificate", asked)
		}
	}
	if status := s.status(); status.Failure != `"a.one.test": no intermediate may sign for it` {
		t.Errorf("%+v", status)
	}
}

// A name that is no longer inspected is removed, and a new intermediate renews all certificates. An unusable file
// changes nothing.
func TestFilesChange(t *testing.T) {
	s := newSigner(t)
	s.inspect(t, "w.test", "one.test")
	s.sign(t, "w.test", "one.test")
	stream := s.stream(t)
	must.Happen(t, "the files are read", func() bool {
		return s.names.Value().rule("one.test") != "" && s.intermediates.Value().covering("one.test") != nil
	})
	first := map[string]answer{"a.w.test": stream.ask("a.w.test"), "one.test": stream.ask("one.test")}
	s.sign(t, "w.test", "one.test")
	for range first {
		got := stream.next()
		s.verify(t, got.chain, got.name, testTime)
		if before, known := first[got.name]; !known || string(before.chain) == string(got.chain) {
			t.Errorf("%q was not made anew", got.name)
		}
	}
	s.put(t, "intermediates", []byte("{"))
	must.Happen(t, "it is refused", func() bool { return s.status().Intermediates.Refused == 1 })
	s.inspect(t, "w.test")
	if got := stream.next(); !got.isRemoval() || got.name != "one.test" {
		t.Errorf("%q was answered", got.name)
	}
	if !stream.ask("one.test").isRemoval() || stream.ask("a.w.test").isRemoval() {
		t.Error("the wrong name has a certificate")
	}
}

// A certificate is renewed after two thirds of its life, and when the clock was set to before its start.
func TestRenewal(t *testing.T) {
	s := newSigner(t)
	stream := s.stream(t)
	stream.ask("a.w.test")
	for _, at := range []time.Duration{leafLife*2/3 + time.Minute, 0} {
		s.offset.Store(int64(at))
		got := stream.next()
		s.verify(t, got.chain, "a.w.test", testTime.Add(at))
	}
	if status := s.status(); status.Held != 1 {
		t.Errorf("%+v", status)
	}
}

// Several streams are independent.
func TestStreamsAreIndependent(t *testing.T) {
	s := newSigner(t)
	for range mostStreams {
		s.stream(t).ask("a.w.test")
	}
	s.inspect(t)
	must.Happen(t, "all are taken back", func() bool { return s.status().Held == 0 })
}

// An invalid request ends its stream, with a reason in the status.
func TestStreamsEnd(t *testing.T) {
	s := newSigner(t)
	for what, test := range map[string]struct {
		path, kind, text string
		want             int
	}{
		"another method":   {"/envoy.service.secret.v3.SecretDiscoveryService/DeltaSecrets", "application/grpc", "", unimplemented},
		"no gRPC":          {method, "text/plain", "", unimplemented},
		"compressed":       {method, "application/grpc", "\x01\x00\x00\x00\x00", invalidArgument},
		"no message":       {method, "application/grpc", "\x00\x00\x00\x00\x02\x1a\x05", invalidArgument},
		"too long":         {method, "application/grpc+proto", "\x00\x7f\xff\xff\xff", resourceExhausted},
		"another resource": {method, "application/grpc", string(framed(encoded(request{kind: "type.googleapis.com/x", subscribe: []string{"a"}}))), invalidArgument},
		"a part of one":    {method, "application/grpc", "\x00\x00\x00", ok},
	} {
		stream := s.call(t, test.path, test.kind)
		go func() {
			_, _ = stream.body.Write([]byte(test.text))
			stream.body.Close()
		}()
		if status := stream.status(); status != fmt.Sprint(test.want) {
			t.Errorf("%s: it ended with %q", what, status)
		}
		if failure := s.status().Failure; test.want != ok && !strings.Contains(failure, fmt.Sprintf("a stream ended with %d", test.want)) {
			t.Errorf("%s: told is %q", what, failure)
		}
	}
}

// Only the program's group can reach the socket for certificates, and only root the others. Nobody can open the
// file with secrets on the disk, which keeps its content.
func TestListen(t *testing.T) {
	must.BeRoot(t, "to give a file to a group")
	folder := filepath.Join(filepath.Dir(must.SocketPath(t)), "signer")
	disk := Resting(filepath.Dir(folder))
	for range 2 { // the second replaces the first
		sockets := must.Get[[]*os.File](t)(Listen(folder, disk))
		for path, want := range map[string]struct {
			mode  os.FileMode
			group uint32
			user  uint32
		}{folder: {os.ModeDir | 0o710, users.Readers, 0}, folder + "/ads": {os.ModeSocket | 0o660, users.Readers, 0}, folder + "/status": {os.ModeSocket | 0o600, 0, 0}, folder + "/secrets": {os.ModeSocket | 0o600, 0, 0}, disk: {0o600, users.Signers, users.Signers}} {
			info := must.Get[os.FileInfo](t)(os.Stat(path))
			owner := info.Sys().(*syscall.Stat_t)
			if info.Mode() != want.mode || owner.Uid != want.user || owner.Gid != want.group {
				t.Errorf("%s: %s %d:%d", path, info.Mode(), owner.Uid, owner.Gid)
			}
		}
		if got := must.Get[string](t)(os.Readlink(fmt.Sprintf("/proc/self/fd/%d", sockets[4].Fd()))); got != disk {
			t.Errorf("the last file is %s", got)
		}
		must.Get[int](t)(sockets[4].WriteString("x"))
		for _, file := range sockets {
			file.Close()
		}
	}
	if content := must.Get[[]byte](t)(os.ReadFile(disk)); string(content) != "x" {
		t.Errorf("on the disk: %q", content)
	}
	must.Succeed(t, errors.Join(os.Remove(disk), os.Symlink("elsewhere", disk)))
	if _, err := Listen(folder, disk); err == nil {
		t.Error("a link is followed")
	}
}

// The signer uses the sockets that it was given, and reports its loaded files.
func TestSign(t *testing.T) {
	must.BeRoot(t, "to give a file to a group")
	s := newSigner(t)
	folder := filepath.Join(s.folder, "signer")
	given := must.Get[[]*os.File](t)(Listen(folder, Resting(filepath.Dir(folder))))
	if err := Sign([]string{folder, "a", "b"}, given[:1]); err == nil {
		t.Error("one file is enough")
	}
	go func() {
		_ = Sign([]string{folder, filepath.Join(s.folder, "names"), filepath.Join(s.folder, "none")}, given)
	}()
	status := must.Get[Status](t)(Ask(folder))
	if status.Names.Digest == "" || status.Names.Reason != "" || status.Intermediates.Digest != "" || status.Intermediates.Reason == "" {
		t.Errorf("%+v", status)
	}
	if held := must.Get[Held](t)(GiveSecrets(folder, Giving{Key: testKey, Give: map[string]string{"a": "x"}})); len(held.Secrets) != 1 {
		t.Errorf("%+v", held)
	}
}
