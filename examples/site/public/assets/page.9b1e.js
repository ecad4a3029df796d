"use strict";

const messages = document.getElementById("messages");
const text = document.getElementById("text");
let socket;

function show(line) {
  const item = document.createElement("li");
  item.textContent = line;
  messages.append(item);
}

// Again after a while, when the connection has ended.
function connect() {
  socket = new WebSocket(new URL("/ws", location.href.replace(/^http/, "ws")));
  socket.onopen = () => show("connected");
  socket.onmessage = ({ data }) => show(data);
  socket.onclose = ({ code }) => {
    show(`closed with ${code}`);
    setTimeout(connect, 1000 + Math.random() * 4000);
  };
}

document.getElementById("form").onsubmit = (event) => {
  event.preventDefault();
  if (socket.readyState === WebSocket.OPEN) socket.send(text.value);
  text.value = "";
};

connect();
