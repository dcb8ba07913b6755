"""SenseDistil: distillation of BERT and DeBERTa encoders."""
