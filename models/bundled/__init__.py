"""The bundled model: a small masked-diffusion LM, its corpus, its tasks and the program that makes them."""
