//! An Azure OpenAI stand-in, as a tower service and over a socket.
