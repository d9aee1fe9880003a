// Package signing is `fwctl sign`, an unprivileged process beside Envoy: the signer. It issues a certificate when
// Envoy first requests an inspected name, and holds the intermediates' keys, which Envoy can't read.
//
// Envoy subscribes to a secret with the server name of a client, whatever that is (delta discovery over ADS). It
// keeps a secret until it is removed.
package signing

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/encoding/protowire"

	"clawker-fw/internal/hotfile"
	"clawker-fw/internal/statussocket"
	"clawker-fw/internal/users"
	"clawker-fw/internal/volume"
)

// The sockets in the signer's folder: for Envoy, for the status, and for new secrets.
const (
	adsSocket     = "ads"
	statusSocket  = "status"
	secretsSocket = "secrets"
)

// Status is the signer's configuration and activity since its start.
type Status struct {
	Names         hotfile.Status `json:"names"`         // of the file with the inspected names
	Intermediates hotfile.Status `json:"intermediates"` // of the file with the intermediates
	Secrets       int            `json:"secrets"`       // number of secrets
	Held          int64          `json:"held"`          // certificates and secrets in Envoy
	Rejected      int64          `json:"rejected"`      // certificates that Envoy rejected
	Failure       string         `json:"failure"`       // the last unexpected failure
}

func (s Status) Loaded(resource string) hotfile.Status {
	return map[string]hotfile.Status{"names": s.Names, "intermediates": s.Intermediates}[resource]
}

// answersWithin limits the wait for the signer's status. A restarted signer is back by then.
const answersWithin = time.Second

func Ask(folder string) (Status, error) {
	var status Status
	err := statussocket.Ask(filepath.Join(folder, statusSocket), answersWithin, nil, &status)
	return status, err
}

// Sign serves Envoy until a socket fails. Its arguments are the folder of its sockets, the file with the inspected
// names, and the file with the intermediates. The supervisor hands it the sockets and the files with secrets,
// which outlive it: Envoy's requests wait in them during a restart.
func Sign(arguments []string, files []*os.File) error {
	if len(files) != 5 {
		return fmt.Errorf("the signer got %d files instead of five", len(files))
	}
	var listeners [3]net.Listener
	for number := range listeners {
		var err error
		if listeners[number], err = net.FileListener(files[number]); err != nil {
			return err
		}
	}
	server := newServer(arguments[1], arguments[2], Kept{files[3], files[4]})
	server.follow()
	go statussocket.Tell(listeners[1], func() any { return server.status() })
	go statussocket.Serve(listeners[2], 1, server.secrets.converse)
	return server.overHTTP().Serve(listeners[0])
}

func (s *server) status() Status {
	_, intermediates := s.intermediates.Fresh()
	_, names := s.names.Fresh()
	status := Status{
		Names: names, Intermediates: intermediates, Secrets: s.secrets.count(),
		Held: s.counts.held.Load(), Rejected: s.counts.rejected.Load(),
	}
	if failure := s.counts.lastFailure.Load(); failure != nil {
		status.Failure = *failure
	}
	return status
}

// Listen creates the signer's folder anew, with its sockets, and opens the files for secrets in memory and at a
// path on the disk, to be handed down. The first socket, for certificates with their keys, and secrets, is open
// only to the program's group. The others are for root.
func Listen(folder, disk string) ([]*os.File, error) {
	if err := errors.Join(os.RemoveAll(folder), os.Mkdir(folder, 0o700)); err != nil {
		return nil, err
	}
	var opened []*os.File
	for _, name := range []string{adsSocket, statusSocket, secretsSocket} {
		socket, err := statussocket.Prepare(filepath.Join(folder, name), 0o600)
		if err != nil {
			return nil, err
		}
		opened = append(opened, socket)
	}
	memory, err := unix.MemfdCreate("secrets", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, err
	}
	resting, err := openResting(disk)
	if err != nil {
		return nil, fmt.Errorf("the secrets on the disk: %w", err)
	}
	return append(opened, os.NewFile(uintptr(memory), "secrets"), resting), errors.Join(
		unix.Fchmod(memory, 0o600),
		admit(filepath.Join(folder, adsSocket), 0o660),
		admit(folder, 0o710),
	)
}

// openResting opens the file of secrets at rest, which belongs to an unused user, so nobody else can open it.
func openResting(path string) (*os.File, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, err
	}
	opened, err := volume.OpenFor(path, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW)
	if err != nil {
		return nil, err
	}
	return opened, opened.Chown(users.Signers, users.Signers) // its mode stays: changing another user's needs a capability
}

func admit(path string, mode os.FileMode) error {
	return errors.Join(os.Chown(path, -1, users.Readers), os.Chmod(path, mode))
}

const (
	// method is the only gRPC method.
	method = "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources"

	// mostStreams limits the streams of a connection. Envoy has one.
	mostStreams = 4

	// lookEvery is the interval of checks for changed files, and reviewEvery of those for certificates to renew.
	lookEvery   = 50 * time.Millisecond
	reviewEvery = time.Second

	// headerTime limits a request's headers.
	headerTime = 5 * time.Second
)

// gRPC status codes (google/rpc/code.proto).
const (
	ok                = 0
	invalidArgument   = 3
	resourceExhausted = 8
	unimplemented     = 12
)

type server struct {
	certificates
	secrets *secrets
	counts  counters
	now     func() time.Time
}

func newServer(names, intermediates string, kept Kept) *server {
	return &server{
		certificates: certificates{hotfile.New(names, parseNames), hotfile.New(intermediates, parseAuthority)},
		secrets:      newSecrets(kept, time.Now),
		now:          time.Now,
	}
}

func (s *server) follow() {
	s.names.Refresh() // the status has the reason for an unusable one
	s.intermediates.Refresh()
	go s.names.Follow()
	go s.intermediates.Follow()
}

func (s *server) overHTTP() *http.Server {
	var protocols http.Protocols
	protocols.SetUnencryptedHTTP2(true)
	return &http.Server{
		Handler: s, Protocols: &protocols, HTTP2: &http.HTTP2Config{MaxConcurrentStreams: mostStreams},
		ReadHeaderTimeout: headerTime, ErrorLog: log.New(os.Stderr, "fwctl: ", 0),
	}
}

func (s *server) ServeHTTP(writer http.ResponseWriter, called *http.Request) {
	code, reason := unimplemented, "no such method"
	isGRPC := strings.HasPrefix(called.Header.Get("Content-Type"), "application/grpc")
	if called.Method == http.MethodPost && called.URL.Path == method && isGRPC {
		code, reason = s.serve(writer, called)
	}
	if code != ok {
		s.counts.fail(fmt.Sprintf("a stream ended with %d: %s", code, reason))
	}
	writer.Header().Set("Content-Type", "application/grpc")
	writer.Header().Set(http.TrailerPrefix+"Grpc-Status", fmt.Sprint(code))
	writer.Header().Set(http.TrailerPrefix+"Grpc-Message", reason)
}

func (s *server) serve(writer http.ResponseWriter, called *http.Request) (int, string) {
	writer.Header().Set("Content-Type", "application/grpc")
	flusher := http.NewResponseController(writer)
	if err := flusher.Flush(); err != nil {
		return ok, "" // the client is gone
	}
	has := newSubscription(sources{s.certificates, s.secrets}, &s.counts)
	defer has.end()
	requests, ended := readRequests(called.Context(), called.Body)
	looks := time.NewTicker(lookEvery)
	defer looks.Stop()
	current, reviewed := s.loaded(), s.now()
	for {
		// All answers first: then no more than one request's answers wait here.
		for message := has.next(s.now()); message != nil; message = has.next(s.now()) {
			_, err := writer.Write(framed(message))
			if errors.Join(err, flusher.Flush()) != nil {
				return ok, ""
			}
		}
		var looking <-chan time.Time // nil until Envoy has a resource, so that an idle machine stays idle
		if len(has.held) > 0 {
			looking = looks.C
		}
		select {
		case request := <-requests:
			if request.kind != secretType {
				return invalidArgument, "no resources of this type"
			}
			has.take(request)
		case err := <-ended:
			return endOf(err)
		case <-looking:
			if now, loaded := s.now(), s.loaded(); loaded != current || now.Sub(reviewed).Abs() >= reviewEvery {
				current, reviewed = loaded, now
				has.review(now)
			}
		}
	}
}

func (s *server) loaded() [3]string {
	return [3]string{s.names.Status().Digest, s.intermediates.Status().Digest, fmt.Sprint(s.secrets.turn.Load())}
}

func readRequests(stream context.Context, body io.Reader) (<-chan request, <-chan error) {
	requests, ended := make(chan request), make(chan error, 1)
	go func() {
		for {
			message, err := readFrame(body)
			if err != nil {
				ended <- err
				return
			}
			parsed, err := parseRequest(message)
			if err != nil {
				ended <- err
				return
			}
			select {
			case requests <- parsed:
			case <-stream.Done():
				return
			}
		}
	}()
	return requests, ended
}

func endOf(err error) (int, string) {
	switch {
	case errors.Is(err, errTooLong):
		return resourceExhausted, err.Error()
	case errors.Is(err, errMalformed):
		return invalidArgument, err.Error()
	}
	return ok, "" // Envoy has closed it, or is gone
}

// Envoy's incremental discovery messages, by the numbers of the needed fields
// (envoy/service/discovery/v3/discovery.proto, envoy/extensions/transport_sockets/tls/v3/{secret,common}.proto),
// in gRPC frames (PROTOCOL-HTTP2.md, "Length-Prefixed-Message").

const secretType = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret"

// Fields of a DeltaDiscoveryRequest.
const (
	requestType        = 2
	requestSubscribe   = 3
	requestUnsubscribe = 4
	requestNonce       = 6
	requestError       = 7
)

// Fields of a DeltaDiscoveryResponse, and of its Resource.
const (
	responseVersion   = 1
	responseResources = 2
	responseType      = 4
	responseNonce     = 5
	responseRemoved   = 6

	resourceVersion = 1
	resourceContent = 2
	resourceName    = 3
)

const (
	frameHead = 5

	// longestRequest limits a message. After a silence Envoy repeats all names that it waits for, of up to 255
	// bytes.
	longestRequest = 16 << 20
)

// request is Envoy's message: names to subscribe to and unsubscribe from, and whether it accepted the nonce's
// answer.
type request struct {
	kind                   string
	subscribe, unsubscribe []string
	nonce                  string
	rejected               bool
	reason                 string // of the rejection
}

var (
	errTooLong   = fmt.Errorf("a request has more than %d bytes", longestRequest)
	errMalformed = errors.New("an unreadable request")
)

func readFrame(body io.Reader) ([]byte, error) {
	var head [frameHead]byte
	if _, err := io.ReadFull(body, head[:]); err != nil {
		return nil, err
	}
	size := binary.BigEndian.Uint32(head[1:])
	if head[0] != 0 {
		return nil, fmt.Errorf("%w: it is compressed", errMalformed)
	}
	if size > longestRequest {
		return nil, errTooLong
	}
	message := make([]byte, size)
	_, err := io.ReadFull(body, message)
	return message, err
}

func framed(message []byte) []byte {
	frame := make([]byte, frameHead, frameHead+len(message))
	binary.BigEndian.PutUint32(frame[1:], uint32(len(message)))
	return append(frame, message...)
}

func parseRequest(message []byte) (request, error) {
	var parsed request
	err := fields(message, func(number protowire.Number, content []byte) error {
		switch number {
		case requestType:
			parsed.kind = string(content)
		case requestSubscribe:
			parsed.subscribe = append(parsed.subscribe, string(content))
		case requestUnsubscribe:
			parsed.unsubscribe = append(parsed.unsubscribe, string(content))
		case requestNonce:
			parsed.nonce = string(content)
		case requestError:
			parsed.rejected = true
			return fields(content, func(number protowire.Number, content []byte) error {
				if number == 2 { // google.rpc.Status.message
					parsed.reason = string(content)
				}
				return nil
			})
		}
		return nil
	})
	if err != nil {
		return request{}, fmt.Errorf("%w: %w", errMalformed, err)
	}
	return parsed, nil
}

func fields(message []byte, visit func(protowire.Number, []byte) error) error {
	for len(message) > 0 {
		number, kind, size := protowire.ConsumeTag(message)
		if size < 0 {
			return protowire.ParseError(size)
		}
		message = message[size:]
		if size = protowire.ConsumeFieldValue(number, kind, message); size < 0 {
			return protowire.ParseError(size)
		}
		if kind == protowire.BytesType {
			content, _ := protowire.ConsumeBytes(message)
			if err := visit(number, content); err != nil {
				return err
			}
		}
		message = message[size:]
	}
	return nil
}

func tlsCertificate(name string, chain, key []byte) []byte {
	certificate := field(field(nil, 1, inline(chain)), 2, inline(key))
	return field(field(nil, 1, []byte(name)), 2, certificate)
}

func genericSecret(name, value string) []byte {
	return field(field(nil, 1, []byte(name)), 5, field(nil, 1, inline([]byte(value))))
}

// inline returns a DataSource with its inline_bytes.
func inline(content []byte) []byte { return field(nil, 2, content) }

// response returns a response with one resource. In a larger one, a rejected resource would take the others with
// it.
func response(name, version, nonce string, secret []byte) []byte {
	content := field(field(nil, 1, []byte(secretType)), 2, secret) // google.protobuf.Any
	resource := field(field(field(nil, resourceVersion, []byte(version)), resourceContent, content), resourceName, []byte(name))
	return closed(field(field(nil, responseVersion, []byte(version)), responseResources, resource), nonce)
}

func removed(name, nonce string) []byte {
	return closed(field(nil, responseRemoved, []byte(name)), nonce)
}

func closed(response []byte, nonce string) []byte {
	return field(field(response, responseType, []byte(secretType)), responseNonce, []byte(nonce))
}

func field(message []byte, number protowire.Number, content []byte) []byte {
	return protowire.AppendBytes(protowire.AppendTag(message, number, protowire.BytesType), content)
}
