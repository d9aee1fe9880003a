// Sends one message to a WebSocket server, and prints what comes back.
const socket = new WebSocket(process.argv[2]);
socket.onopen = () => socket.send("hello");
socket.onmessage = ({ data }) => {
  console.log(data);
  socket.close();
};
socket.onerror = ({ error, message }) => {
  console.error(error?.cause?.message ?? error?.message ?? message ?? "error");
  process.exit(1);
};
