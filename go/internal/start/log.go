package start

import (
	"bytes"
	"os"
)

// A reader of the container's log that stalls must not delay the keeper or a helper: what they say about themselves waits
// for it in the keeper's memory. There are mostChunks of at most chunkOctets, and what is more is left out.
const (
	mostChunks  = 64
	chunkOctets = 1 << 12
)

// neverWaits returns a file to write to in place of one whose reader may stall.
func neverWaits(log *os.File) (*os.File, error) {
	read, write, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	waiting := make(chan []byte, mostChunks)
	go func() {
		for text := range waiting {
			_, _ = log.Write(text) // nobody could be told
		}
	}()
	go func() {
		defer close(waiting)
		for buffer := make([]byte, chunkOctets); ; {
			size, err := read.Read(buffer)
			if err != nil {
				return
			}
			select {
			case waiting <- bytes.Clone(buffer[:size]):
			default:
			}
		}
	}()
	return write, nil
}
