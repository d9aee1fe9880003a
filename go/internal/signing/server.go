package signing

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
	"strings"
	"time"

	"clawker-fw/internal/hotfile"
)

const (
	// method is the only one of gRPC that there is.
	method = "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources"

	// mostStreams is how many streams there may be at once. Envoy has one.
	mostStreams = 4

	// lookEvery is the interval at which a stream looks whether there is something else to give, reviewEvery that at which it
	// looks for certificates that are due.
	lookEvery   = 50 * time.Millisecond
	reviewEvery = time.Second

	// headerTime is how long a client may take to say what it wants.
	headerTime = 5 * time.Second
)

// The codes of gRPC with which a stream ends (google/rpc/code.proto).
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
	s.names.Refresh() // the status says why one can't be used
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

// ServeHTTP serves one stream.
func (s *server) ServeHTTP(writer http.ResponseWriter, called *http.Request) {
	streams := s.counts.streams.Add(1)
	defer s.counts.streams.Add(-1)
	code, reason := unimplemented, "there is no such method"
	switch {
	case streams > mostStreams:
		code, reason = resourceExhausted, "there are too many streams"
	case called.Method == http.MethodPost && called.URL.Path == method && strings.HasPrefix(called.Header.Get("Content-Type"), "application/grpc"):
		code, reason = s.serve(writer, called)
	}
	if code != ok {
		s.counts.fail(fmt.Sprintf("a stream has ended with %d: %s", code, reason))
	}
	writer.Header().Set("Content-Type", "application/grpc")
	writer.Header().Set(http.TrailerPrefix+"Grpc-Status", fmt.Sprint(code))
	writer.Header().Set(http.TrailerPrefix+"Grpc-Message", reason)
}

func (s *server) serve(writer http.ResponseWriter, called *http.Request) (int, string) {
	writer.Header().Set("Content-Type", "application/grpc")
	flusher := http.NewResponseController(writer)
	if err := flusher.Flush(); err != nil {
		return ok, "" // it has gone
	}
	has := newSubscription(sources{s.certificates, s.secrets}, &s.counts)
	defer has.end()
	requests, ended := readRequests(called.Context(), called.Body)
	looks := time.NewTicker(lookEvery)
	defer looks.Stop()
	known, reviewed := s.loaded(), s.now()
	for {
		// All answers first: so what waits here is never more than what one request has asked for.
		for message := has.next(s.now()); message != nil; message = has.next(s.now()) {
			if _, err := writer.Write(framed(message)); err != nil {
				return ok, ""
			}
			if err := flusher.Flush(); err != nil {
				return ok, ""
			}
		}
		var looking <-chan time.Time // for what Envoy has: without any of it, nothing keeps an idle machine busy
		if len(has.held) > 0 {
			looking = looks.C
		}
		select {
		case said := <-requests:
			if said.kind != secretType {
				return invalidArgument, "there are no resources of this type"
			}
			has.take(said)
		case err := <-ended:
			return endOf(err)
		case <-looking:
			if now, found := s.now(), s.loaded(); found != known || now.Sub(reviewed).Abs() >= reviewEvery {
				known, reviewed = found, now
				has.review(now)
			}
		}
	}
}

func (s *server) loaded() [3]string {
	return [3]string{s.names.Status().Digest, s.intermediates.Status().Digest, fmt.Sprint(s.secrets.changes())}
}

// readRequests reads requests until a stream ends, one when the one before has been taken, and sends why it has ended.
func readRequests(stream context.Context, body io.Reader) (<-chan request, <-chan error) {
	requests, ended := make(chan request), make(chan error, 1)
	go func() {
		for {
			message, err := readFrame(body)
			if err != nil {
				ended <- err
				return
			}
			said, err := parseRequest(message)
			if err != nil {
				ended <- err
				return
			}
			select {
			case requests <- said:
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
	return ok, "" // Envoy has ended it, or is gone
}
